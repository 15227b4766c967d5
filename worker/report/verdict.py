"""The sentences that sum a merge up, for the report and the card alike."""

from collections.abc import Mapping
from typing import Any

from app.recipes import Measuring, Scoring
from worker.pipeline.task import Task
from worker.report.evaluation import statement
from worker.report.schema import Evaluation, Selection

FOUND = "each weight by a strength of its own, which policy auto found on the calibration tasks"
NO_EVALUATION = "No evaluation was run: what this did to the model's abilities has not been measured."


def verdict(
    task: Task, *, selection: Selection, shares: Mapping[str, Any], evaluation: Evaluation | None = None
) -> str:
    """One line: what was done to how much of the model, and whether its effect was measured."""
    if isinstance(task.recipe, Scoring):
        return _scored(task, selection=selection)
    measured = statement(evaluation) if evaluation else NO_EVALUATION
    if isinstance(task.recipe, Measuring):
        return f"Asked {', '.join(model.repo for model in task.models)}. {measured}".strip()
    done = _restored(task, selection=selection, shares=shares) if selection.scored else _merged(task)
    return f"{done} {measured}".strip()


def strength(task: Task) -> str:
    """How far a restored tensor moved, in words; empty for methods without a `t`."""
    return strength_of({name: getattr(task.method, name, None) for name in ("policy", "t")})


def strength_of(parameters: Mapping[str, Any]) -> str:
    """The same for a method's parameters from a report."""
    if parameters.get("policy") == "auto":
        return FOUND
    t = parameters.get("t")
    if t is None:
        return ""
    if t == 0:
        return "t = 0, the base's own bytes"
    return f"t = {t:g}, {1 - t:.0%} of the way back to the base"


def count(number: int) -> str:
    """A number of parameters or bytes, short: 1234567 as 1.23 M."""
    for size, unit in ((1_000_000_000, " B"), (1_000_000, " M"), (1_000, " k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)


def fallback_statement(fallbacks: int, *, operations: Mapping[str, int]) -> str | None:
    """What it means that SLERP fell back to LERP, where it did. Source: mergekit's rule, |cos| > 0.9995."""
    if not fallbacks:
        return None
    total = max(fallbacks, sum(count for word, count in operations.items() if word.startswith(("slerp", "lerp"))))
    return (
        f"For {fallbacks} of {total} restored tensors SLERP fell back to LERP (plain linear interpolation), because "
        "base and adapted weights point almost the same way (|cos| > 0.9995). At such angles the two agree to within "
        "a fraction of a percent of the change: the restoration is W_b + t (W_a - W_b), tensor by tensor."
    )


def _scored(task: Task, *, selection: Selection) -> str:
    return (
        f"Scored {selection.scored} tensors of {task.experts[0].repo} against {task.base.repo}; this selection would "
        f"restore {selection.selected} of them ({count(selection.parameters)} parameters). Nothing was changed."
    )


def _restored(task: Task, *, selection: Selection, shares: Mapping[str, Any]) -> str:
    base, expert = task.base.repo, task.experts[0].repo
    more, whole = _beyond(selection, shares), shares.get("model_parameters")
    parameters = int(shares["parameters"]) if more else selection.parameters
    part = f", {parameters / whole:.1%} of the model" if whole else ""
    left = "" if parameters == whole else "; the other tensors are the adapted model's"
    return (
        f"Restored {selection.selected} of {selection.scored} scored tensors{f' and {more} others' if more else ''} "
        f"({count(parameters)} parameters{part}) of {expert} towards {base} ({strength(task)}){left}."
    )


def _beyond(selection: Selection, shares: Mapping[str, Any]) -> int:
    """How many tensors were restored that no score was asked for: `auto` moves norms and embeddings as well."""
    scored = {module.module_type for module in selection.modules}
    return sum(one["tensors"] for kind, one in shares.get("modules", {}).items() if kind not in scored)


def _merged(task: Task) -> str:
    experts = ", ".join(source.repo for source in task.experts)
    return f"Merged {experts} with {task.base.repo} by {task.method.method_name()}."
