"""The evidence that is published beside the weights: card, report, figures, and the manifest over all of them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from worker.pipeline.task import Task
from worker.report import schema
from worker.report.card import build_card
from worker.report.evaluation import evaluation_summary
from worker.report.figures import draw
from worker.report.manifest import MANIFEST, build_manifest, canonical, digest, file_digest
from worker.report.report import build_report, lasting
from worker.report.spectra import every
from worker.scores.curve import Curve

REPORT = "report.json"
CARD = "README.md"
SPECTRA = "spectra.json"
"""the spectra of all scored tensors, for the job's page; they are not published"""


def write(
    task: Task,
    *,
    rows: Sequence[Mapping[str, Any]],
    selection: Mapping[str, Any],
    merge: Mapping[str, Any],
    verification: Mapping[str, Any],
    costs: Mapping[str, Any],
    decisions: Sequence[Mapping[str, Any]],
    digests: Mapping[str, tuple[int, str]],
    warnings: Sequence[str] = (),
    curves: Mapping[str, Curve] | None = None,
    merged: Mapping[str, Sequence[float]] | None = None,
    evaluation: schema.Evaluation | None = None,
) -> dict[str, Any]:
    """Write README.md, report.json, figures/ and last merge_manifest.json into `task.output`.

    `digests` are bytes and sha256 of the files that were hashed as they were written (the weights), by their path
    inside of `task.output`; every other file there is hashed now. The arguments before it are `build_report`'s and
    `build_manifest`'s. The published report.json holds nothing that was measured, so that a second run of the job
    ends in the same manifest; the whole one, with the costs, is written to `report.json` in `task.work_dir`.
    Returns the summary for `Reporter.done`.
    """
    report = build_report(
        task, rows=rows, selection=selection, merge=merge, verification=verification, costs=costs, warnings=warnings,
        curves=curves, merged=merged, evaluation=evaluation,
    )  # fmt: skip
    if curves:
        (task.work_dir / SPECTRA).write_bytes(canonical(every(rows, curves=curves)))
    (task.work_dir / REPORT).write_bytes(canonical(report))
    (task.output / REPORT).write_bytes(canonical(lasting(report)))
    _write_card(task, report=report)
    manifest = build_manifest(
        task,
        decisions=decisions,
        operations=report["merge"]["operations"],
        outputs=_outputs(task.output, known=digests),
        engine=report["engine"],
    )
    content = canonical(manifest)
    (task.output / MANIFEST).write_bytes(content)
    return _summary(report, manifest_sha256=digest(content))


def _write_card(task: Task, *, report: dict[str, Any]) -> None:
    figures = draw(report, folder=task.output)
    config = task.output / "config.json"
    known = json.loads(config.read_text()) if config.exists() else {}
    card = build_card(task, report=report, config=known, figures=figures)
    (task.output / CARD).write_text(card, encoding="utf-8")


def _outputs(folder: Path, *, known: Mapping[str, tuple[int, str]]) -> dict[str, tuple[int, str]]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    return {name: known.get(name) or file_digest(path) for name, path in names.items() if name != MANIFEST}


def _summary(report: Mapping[str, Any], *, manifest_sha256: str) -> dict[str, Any]:
    chosen, merge = report["selection"], report["merge"]
    metrics = {
        "parameters_selected": chosen["parameters"],
        "parameters_scored": chosen["parameters_scored"],
        "lerp_fallbacks": merge["lerp_fallbacks"],
        "bytes": merge["bytes"],
    }
    evaluated = evaluation_summary(report)
    return {
        **evaluated,
        "selected": chosen["selected"],
        "scored": chosen["scored"],
        "metrics": metrics | evaluated["metrics"],
        "manifest_sha256": manifest_sha256,
    }
