"""Spectra to look at: of every scored tensor for the job's page, of the tensors asked for in report.json."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from worker.report.schema import Row, Spectrum
from worker.scores.curve import POINTS, Curve, display_ranks, thinned, values_at
from worker.scores.modules import matches

SHOWN = 12
"""tensors whose spectra stand in report.json and in a figure"""
MOST = 1 << 19
"""numbers in the document of all spectra: about 4 MB of JSON; large mixtures get fewer points each"""
FEWEST = 24


def every(rows: Sequence[Mapping[str, Any]], *, curves: Mapping[str, Curve]) -> dict[str, Any]:
    """The document `spectra`: ranks by the number of values, and the spectra of base and adapted model by row.

    It holds at most about `MOST` numbers however many tensors there are.
    """
    points = max(FEWEST, min(POINTS, MOST // (2 * max(1, len(curves)))))
    known = [row for row in rows if row["name"] in curves]
    counts = sorted({curves[row["name"]].count for row in known})
    return {
        "schema_version": 1,
        "ranks": {str(count): display_ranks(count, points) for count in counts},
        "tensors": {row["name"]: _entry(row, curves[row["name"]], points=points) for row in known},
    }


def shown(
    rows: Sequence[Row], *, patterns: Sequence[str], curves: Mapping[str, Curve],
    merged: Mapping[str, Sequence[float]],
) -> tuple[Spectrum, ...]:  # fmt: skip
    """The spectra of the first `SHOWN` scored rows, by name, that match a pattern (of row or stored tensor).

    `merged`: all singular values of merged matrices by row name, descending, where they were computed.
    """
    chosen = [row for row in rows if row.name in curves and asked(row, patterns)][:SHOWN]
    return tuple(_spectrum(row, curves[row.name], merged=merged.get(row.name)) for row in chosen)


def asked(row: Row, patterns: Sequence[str]) -> bool:
    """Whether a pattern names the row, or the stored tensor that it is a part of."""
    stored = (row.model_extra or {}).get("tensor", row.name)
    return matches(row.name, patterns) or matches(str(stored), patterns)


def _entry(row: Mapping[str, Any], curve: Curve, *, points: int) -> dict[str, Any]:
    base, adapted = (
        thinned(values_at(side), count=curve.count, points=points) for side in (curve.base, curve.adapted)
    )
    return {
        "shape": row["shape"], "count": curve.count, "precision": row.get("precision"),
        "edge": _finite(row.get("noise_edge")), "edge_adapted": _finite(row.get("noise_edge_adapted")),
        "base": base, "adapted": adapted,
    }  # fmt: skip


def _spectrum(row: Row, curve: Curve, *, merged: Sequence[float] | None) -> Spectrum:
    ranks, extra = display_ranks(curve.count), row.model_extra or {}
    whole = merged is not None and len(merged) >= curve.count
    return Spectrum(
        name=row.name, shape=row.shape, count=curve.count, precision=extra.get("precision"), ranks=ranks,
        edge=_finite(extra.get("noise_edge")), edge_adapted=_finite(extra.get("noise_edge_adapted")),
        base=tuple(values_at(curve.base)), adapted=tuple(values_at(curve.adapted)),
        merged=tuple(float(f"{merged[rank - 1]:.4g}") for rank in ranks) if merged is not None and whole else None,
        selected=row.selected, t=row.t,
    )  # fmt: skip


def _finite(value: Any) -> float | None:
    return float(f"{value:.4g}") if isinstance(value, int | float) and math.isfinite(value) else None
