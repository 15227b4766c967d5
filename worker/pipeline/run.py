"""The stages of one merge, in order: score and select (where the method asks for it), merge, verify, report."""

import resource
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from app.recipes import Measuring, Scoring, Study
from app.recipes.methods.spear import SpearParameters
from worker.isolation import has_network
from worker.methods.slerp import NO_DIRECTION
from worker.pipeline.controls import further
from worker.pipeline.evaluate import Evaluator, Further, evaluate, measure, prepare
from worker.pipeline.merge import MergeResult, merge
from worker.pipeline.meter import Meter
from worker.pipeline.restored import restored_spectra
from worker.pipeline.score import Scores, device_of, parameters, score
from worker.pipeline.searching import Found, search
from worker.pipeline.select import select
from worker.pipeline.task import Reporter, Task
from worker.pipeline.verify import Verification, verify
from worker.report import schema
from worker.report.evaluation import evaluation_summary, gate_warnings
from worker.report.manifest import canonical
from worker.report.publishable import SPECTRA, write
from worker.report.report import build_report
from worker.report.spectra import every
from worker.scores import Selection

NAMED = 5
"""tensors that a warning names"""


def run(task: Task, reporter: Reporter) -> dict[str, Any]:
    """Make everything that will be published in `task.output`; the summary for the supervisor."""
    meter = Meter(reporter)
    if isinstance(task.recipe, Study):
        from worker.pipeline.study import run_study  # noqa: PLC0415  (it takes a second to import)

        return run_study(task, meter)
    evaluator = prepare(task, meter)
    if isinstance(task.recipe, Measuring):
        assert evaluator is not None
        return _measured_only(task, evaluator, meter)
    scores, selection = _restoration(task, meter)
    if isinstance(task.recipe, Scoring):
        assert scores is not None
        assert selection is not None
        return _scored_only(task, scores, selection, meter)
    found = _searched(task, evaluator, selection, meter)
    selection = found.selection if found else selection
    decisions = selection.decisions if selection else task.replayed
    result = merge(task, decisions, meter)
    warnings = [*_replay_warnings(task), *_merge_warnings(result)]
    for warning in warnings:
        meter.warning(warning)
    warnings += found.warnings if found else []
    verification = verify(task, decisions, result, meter)
    beside = further(evaluator, rows=scores.rows if scores else (), selection=selection, found=found)
    evaluated = _evaluated(evaluator, verification, meter, further=beside)
    warnings += gate_warnings(evaluated)
    shown = restored_spectra(task, selection.rows) if selection else {}
    shutil.rmtree(task.output / "figures", ignore_errors=True)
    summary = write(
        task,
        rows=selection.rows if selection else (),
        selection=selection.shares if selection else {},
        merge=_merge_facts(result),
        verification=_verification_facts(verification),
        costs=_costs(task, meter, scores=scores, evaluator=evaluator),
        curves=scores.curves if scores else {},
        merged=shown,
        evaluation=evaluated,
        decisions=_decisions(result, chosen=decisions or {}),
        digests={file.name: (file.nbytes, file.sha256) for file in verification.files},
        warnings=[*(scores.warnings if scores else ()), *(selection.warnings if selection else ()), *warnings],
    )
    if evaluated and evaluated.points:
        from worker.evaluation.studies.frontier import write_frontier  # noqa: PLC0415  (slow to import)

        write_frontier(task.work_dir, output=task.output)
    return summary


def _restoration(task: Task, reporter: Reporter) -> tuple[Scores | None, Selection | None]:
    if task.replayed is not None or not isinstance(getattr(task.recipe, "method", None), SpearParameters):
        return None, None
    scores = score(task, reporter)
    reporter.stage("selecting", total=len(scores.rows), unit="tensors")
    selection = select(task, scores.rows)
    reporter.step(done=len(scores.rows), name="selection", selected=len(selection.decisions))
    for warning in (*scores.warnings, *selection.warnings):
        reporter.warning(warning)
    return scores, selection


def _searched(task: Task, evaluator: Evaluator | None, selection: Selection | None, reporter: Reporter) -> Found | None:
    """The strengths of `policy: auto`, where the recipe asks for it."""
    if selection is None or evaluator is None or parameters(task).searching is None:
        return None
    found = search(evaluator, selection, reporter)
    for warning in found.warnings:
        reporter.warning(warning)
    return found


def _scored_only(task: Task, scores: Scores, selection: Selection, meter: Meter) -> dict[str, Any]:
    report = build_report(
        task, rows=selection.rows, selection=selection.shares, merge={}, verification={},
        costs=_costs(task, meter, scores=scores), warnings=[*scores.warnings, *selection.warnings],
        curves=scores.curves,
    )
    (task.work_dir / SPECTRA).write_bytes(canonical(every(selection.rows, curves=scores.curves)))
    (task.work_dir / "report.json").write_bytes(canonical(report))
    chosen = report["selection"]
    metrics = {"parameters_selected": chosen["parameters"], "parameters_scored": chosen["parameters_scored"]}
    return {"selected": chosen["selected"], "scored": chosen["scored"], "metrics": metrics}


def _evaluated(
    evaluator: Evaluator | None, verification: Verification, meter: Meter, *, further: Sequence[Further]
) -> schema.Evaluation | None:
    """What was measured of the result, where the recipe asks for it; a gate that warns is heard at once."""
    if evaluator is None:
        return None
    found = evaluate(evaluator, weights={file.name: file.sha256 for file in verification.files}, further=further)
    for warning in gate_warnings(found):
        meter.warning(warning)
    return found


def _measured_only(task: Task, evaluator: Evaluator, meter: Meter) -> dict[str, Any]:
    evaluation = measure(evaluator)
    report = build_report(
        task, rows=(), selection={}, merge={}, verification={}, evaluation=evaluation,
        costs=_costs(task, meter, scores=None, evaluator=evaluator),
    )
    (task.work_dir / "report.json").write_bytes(canonical(report))
    return {"selected": 0, "scored": 0, **evaluation_summary(report)}


def _merge_facts(result: MergeResult) -> dict[str, Any]:
    return {
        "operations": dict(Counter(result.operations.values())),
        "lerp_fallbacks": sum(operation.startswith("lerp") for operation in result.operations.values()),
        "bytes": result.bytes_written, "seconds": result.seconds, "bytes_read": result.bytes_read,
        "resumed": result.resumed,
    }  # fmt: skip


def _replay_warnings(task: Task) -> list[str]:
    return [] if task.replayed is None else ["the decisions of an earlier merge were replayed; nothing was scored"]


def _merge_warnings(result: MergeResult) -> list[str]:
    """What the inputs' tensors were that somebody should look at."""
    flat = [name for name, operation in result.operations.items() if operation == NO_DIRECTION]
    rest = f" and {len(flat) - NAMED} more" if len(flat) > NAMED else ""
    words = "all zeros in one of the models, so there is no angle: interpolated linearly"
    return [f"{', '.join(flat[:NAMED])}{rest}: {words}"] if flat else []


def _verification_facts(verification: Verification) -> dict[str, Any]:
    facts = asdict(verification)
    del facts["seconds"], facts["files"]
    return facts


def _decisions(result: MergeResult, *, chosen: Mapping[str, float]) -> list[dict[str, Any]]:
    return [
        {"name": name, "operation": operation} | ({"t": chosen[name]} if name in chosen else {})
        for name, operation in result.operations.items()
    ]


def _costs(
    task: Task, meter: Meter, *, scores: Scores | None, evaluator: Evaluator | None = None
) -> dict[str, Any]:
    peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    costs: dict[str, Any] = {
        "device": device_of(task), "peak_rss_bytes": max(peaks) * 1024, "network": has_network(), **meter.facts()
    }
    if scores:
        costs |= {"spectra_computed": scores.computed, "spectra_cached": scores.cached}
        costs["spectra_by_model"] = dict(scores.by_side)
    if evaluator:
        costs["items_asked"] = evaluator.asked
    if scores and scores.agreement:
        costs["fast_agreement"] = scores.agreement._asdict()
    return costs
