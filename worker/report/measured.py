"""The card's chapter on what was measured: a table by task, the means, the gate, and what the controls reached."""

from collections.abc import Sequence

from worker.evaluation.bootstrap import Estimate
from worker.evaluation.measures import Flips, Summary, TaskResult
from worker.report import markup
from worker.report.schema import Evaluation, Gate, Point

MOST_POINTS = 16
EXPLAINED = (
    "Retention is what is left of a general ability (result / base; of losses, the share of the rise that was undone); "
    "gain kept is (result - base) / (adapted - base). In brackets: 95 % intervals by a bootstrap over items."
)


def chapter(evaluation: Evaluation | None) -> list[str]:
    """The parts of the chapter in Markdown; none without an evaluation."""
    if evaluation is None or not evaluation.tasks:
        return []
    held = [point for point in evaluation.points if point.on == "held_out"]
    return [
        "## Evaluation",
        _tasks(evaluation.tasks),
        *_means(evaluation.retention, evaluation.gain_kept),
        EXPLAINED,
        *_gate(evaluation.gate),
        *_points(held),
        *([markup.bullets(one.message for one in evaluation.diagnosis)] if evaluation.diagnosis else []),
    ]


def _tasks(tasks: Sequence[TaskResult]) -> str:
    head = ("task", "", "metric", "items", "base", "adapted", "result", "share", "flips")
    return markup.table(head, [_row(task) for task in tasks], right=(3, 4, 5, 6, 7))


def _row(task: TaskResult) -> tuple[str, ...]:
    values = (shown(one) for one in (task.base, task.adapted, task.merged))
    share = f"{'retention' if task.role == 'general' else 'gain kept'} {shown(task.share)}"
    metric = markup.text(f"{task.metric}, {task.unit}" if task.unit else task.metric)
    return (markup.code(task.task), task.role, metric, str(task.items), *values, share, _flips(task.flips_from_base))


def _flips(flips: Flips | None) -> str:
    """Items that were right with the base and are wrong now, and the other way round."""
    return f"-{flips.lost} +{flips.won}" if flips else ""


def _means(retention: Summary | None, gain: Summary | None) -> list[str]:
    told = [f"{name} {shown(one.mean)}" for name, one in (("retention", retention), ("gain kept", gain)) if one]
    return [f"**Mean {', mean '.join(told)}.**"] if told else []


def _gate(gate: Gate | None) -> list[str]:
    if gate is None:
        return []
    asked = (("a retention", gate.min_retention), ("a gain kept", gate.min_gain_kept))
    wanted = [f"{name} of at least {least:g}" for name, least in asked if least is not None]
    outcome = "and passed" if gate.passed else f"and did not pass ({markup.text('; '.join(gate.reasons))})"
    return [f"The recipe asked for {' and '.join(wanted)}, {outcome}."] if wanted else []


def _points(points: Sequence[Point]) -> list[str]:
    """What the controls reached at their strengths, beside the result: a reader has to be able to doubt it."""
    some = [point for point in points if point.kind in ("chosen", "control")]
    if not any(point.kind == "control" for point in some):
        return []
    rows = [
        (f"**{markup.text(point.label)}**" if point.kind == "chosen" else markup.text(point.label),
         shown(point.retention), shown(point.gain_kept), "" if point.share is None else f"{point.share:.1%}")
        for point in some[:MOST_POINTS]
    ]  # fmt: skip
    head = ("model", "retention", "gain kept", "parameters moved")
    return ["Beside it, simple controls of matched strength:", markup.table(head, rows, right=(1, 2, 3))]


def shown(estimate: Estimate) -> str:
    """A figure with its interval."""
    if estimate.value is None:
        return "not defined"
    interval = "" if estimate.low is None or estimate.high is None else f" ({estimate.low:.3f} to {estimate.high:.3f})"
    return f"{estimate.value:.3f}{interval}"
