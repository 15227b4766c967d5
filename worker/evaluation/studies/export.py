"""A study's merges, or the points of a trade-off, as one table: CSV and Parquet."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from worker.evaluation.studies.schema import CellRow, Study

Value = str | int | float | None
Table = Sequence[Mapping[str, Value]]
"""rows of one set of columns"""


def study_table(report: Study) -> list[dict[str, Value]]:
    """One row for each merge and task, with the merge's own figures beside them."""
    chosen = {one.key for one in report.outcomes}
    names = sorted({name for row in report.cells for name in row.settings})
    about = {row.task: row for row in report.tasks if row.on == "held_out"}
    return [
        {
            **_merge(row, names=names, chosen=row.key in chosen), "task": task, "role": about[task].role,
            "domain": about[task].domain, "dataset": about[task].dataset, "kind": about[task].kind,
            "score": score, "gain": row.gain[task], "og": row.og[task],
        }
        for row in report.cells
        for task, score in row.scores.items()
    ]


def frontier_table(points: Iterable[Mapping[str, Any]]) -> list[dict[str, Value]]:
    """The points of `report.evaluation`: one row for each model between base and adapted."""
    rows = []
    for point in points:
        row: dict[str, Value] = {name: point.get(name) for name in ("kind", "name", "label", "on", "seed", "share")}
        for side in ("retention", "gain_kept"):
            row |= {f"{side}{end}": point[side][of] for end, of in (("", "value"), ("_low", "low"), ("_high", "high"))}
        rows.append(row)
    return rows


def to_csv(table: Table) -> bytes:
    """With a header; nulls are empty. Texts that a spreadsheet would run as a formula begin with an apostrophe."""
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(table[0]) if table else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _harmless(value) for name, value in row.items()} for row in table)
    return out.getvalue().encode()


def to_parquet(table: Table) -> bytes:
    """Compressed by zstd, columns typed by their values. Needs pyarrow, which comes with the eval extra."""
    import pyarrow as pa  # type: ignore[import-untyped]  # noqa: PLC0415  (slow to import)
    from pyarrow import parquet  # noqa: PLC0415

    columns = {name: [row[name] for row in table] for name in table[0]} if table else {}
    out = io.BytesIO()
    typed = pa.table({name: _typed(values) for name, values in columns.items()})
    parquet.write_table(typed, out, compression="zstd")
    return out.getvalue()


def _merge(row: CellRow, *, names: Sequence[str], chosen: bool) -> dict[str, Value]:
    means = {
        f"{figure}_{kind}": getattr(row, figure).get(kind)
        for figure in ("macro_gain", "macro_og", "macro_gain_datasets", "macro_og_datasets")
        for kind in ("score", "loss")
    }
    return {
        "key": row.key, "stage": row.stage, "experts": " + ".join(row.experts), "method": row.method,
        **{name: row.settings.get(name) for name in names}, "chosen": int(chosen), **means,
        "emerged": row.emerged, "lost": row.lost,
    }  # fmt: skip


def _typed(values: Sequence[Value]) -> list[Value]:
    """A column of whole and other numbers is of numbers."""
    mixed = {type(value) for value in values if value is not None} == {int, float}
    return [float(value) if mixed and isinstance(value, int) else value for value in values]


def _harmless(value: Value) -> Value:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
