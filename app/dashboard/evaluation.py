"""What a report says of the evaluation, as the pages show it. Every part may be missing. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.dashboard.charts import TradeOff, Trial

Report = Mapping[str, Any]
Estimate = Mapping[str, Any]
AS_GOOD = "control_as_good"


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task before and after; `share` is what was retained or kept, `verdict` says the same in words."""

    name: str
    role: str
    unit: str
    items: int
    base: Estimate
    adapted: Estimate
    merged: Estimate
    share: Estimate
    flips: tuple[str, str]
    verdict: str


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One model of an evaluation on its own."""

    name: str
    commit: str
    tasks: Sequence[str]
    values: Sequence[Estimate | None]
    retention: Estimate | None
    gain: Estimate | None


def evaluation_of(report: Report | None) -> Mapping[str, Any]:
    """The report's evaluation; empty where there is none."""
    return (report or {}).get("evaluation") or {}


def share_of(evaluation: Mapping[str, Any], name: str) -> Estimate | None:
    """`retention` or `gain_kept` over all tasks, if it is known."""
    mean = (evaluation.get(name) or {}).get("mean")
    return mean if mean and mean.get("value") is not None else None


def tradeoff_of(evaluation: Mapping[str, Any]) -> TradeOff | None:
    """The points that were measured on held-out text, or where there are none those of the search."""
    points = [p for p in evaluation.get("points") or () if _known(p)]
    held_out = [p for p in points if p.get("on", "held_out") == "held_out"]
    trials = tuple(_trial(point) for point in held_out or points)
    gate = evaluation.get("gate") or {}
    if not trials:
        return None
    return TradeOff(trials=trials, min_retention=gate.get("min_retention"), min_gain=gate.get("min_gain_kept"))


def points_of(evaluation: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The same points as the rows of a table, the best first: the sum of both shares, for want of a better order."""
    points = [{"share": None, "on": "held_out"} | dict(p) for p in evaluation.get("points") or () if _known(p)]
    return sorted(points, key=lambda p: -(p["retention"]["value"] + p["gain_kept"]["value"]))


def tasks_of(evaluation: Mapping[str, Any]) -> list[Task]:
    """The tasks, general ones first, each with a word on what became of it."""
    found = [_task(task) for task in evaluation.get("tasks") or ()]
    return sorted(found, key=lambda task: (task.role != "general", task.name))


def _known(point: Mapping[str, Any]) -> bool:
    return all((point.get(name) or {}).get("value") is not None for name in ("retention", "gain_kept"))


def _trial(point: Mapping[str, Any]) -> Trial:
    return Trial(
        label=str(point.get("label") or point.get("name") or point["kind"]), kind=point["kind"],
        retention=point["retention"]["value"], gain=point["gain_kept"]["value"],
        retention_interval=_interval(point["retention"]), gain_interval=_interval(point["gain_kept"]),
    )  # fmt: skip


def _interval(estimate: Estimate) -> tuple[float, float] | None:
    low, high = estimate.get("low"), estimate.get("high")
    return None if low is None or high is None or low == high else (low, high)


def _task(task: Mapping[str, Any]) -> Task:
    return Task(
        name=task["task"], role=task["role"], unit=task.get("unit") or task.get("metric") or "",
        items=task.get("items") or 0, base=task["base"], adapted=task["adapted"], merged=task["merged"],
        share=task["share"], flips=(_flips(task, "flips_from_base"), _flips(task, "flips_from_adapted")),
        verdict=_verdict(task),
    )  # fmt: skip


def _flips(task: Mapping[str, Any], name: str) -> str:
    found = task.get(name)
    return f"+{found['won']} / -{found['lost']}" if found else "-"


def _verdict(task: Mapping[str, Any]) -> str:
    """Against the base where the task is general, against the adapted model where it is of the domain."""
    parent = task["base"] if task["role"] == "general" else task["adapted"]
    lower_is_better = task.get("kind") == "loss"
    worse = _apart(parent, task["merged"]) if lower_is_better else _apart(task["merged"], parent)
    better = _apart(task["merged"], parent) if lower_is_better else _apart(parent, task["merged"])
    name = "the base" if task["role"] == "general" else "the adapted model"
    if task["merged"].get("value") is None or parent.get("value") is None:
        return "-"
    return f"worse than {name}" if worse else f"better than {name}" if better else f"no clear difference from {name}"


def _apart(low: Estimate, high: Estimate) -> bool:
    """Whether the first interval lies wholly below the second; single values are intervals of no width."""
    below, above = _end(low, "high"), _end(high, "low")
    return below is not None and above is not None and below < above


def _end(estimate: Estimate, which: str) -> float | None:
    end: float | None = estimate.get(which)
    return estimate.get("value") if end is None else end


def notes_of(evaluation: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """What the diagnosis says; controls that do as well, of which there may be a dozen, in one note."""
    rest: dict[str, Any] = {"setting": None, "groups": (), "each": ()}
    notes = [rest | dict(note) for note in evaluation.get("diagnosis") or ()]
    good = [note for note in notes if note["kind"] == AS_GOOD]
    if len(good) < 2:
        return notes
    told = {"message": f"{len(good)} simple controls keep as much of both sides", "each": [n["message"] for n in good]}
    return [*(note for note in notes if note["kind"] != AS_GOOD), good[0] | told]


def models_of(evaluation: Mapping[str, Any]) -> list[Measured]:
    """The models of an evaluation on its own, each with its values in the order of the tasks."""
    found = evaluation.get("models") or ()
    names = list(dict.fromkeys(value["task"] for model in found for value in model["tasks"]))
    by_task = [{value["task"]: value["value"] for value in model["tasks"]} for model in found]
    return [
        Measured(
            name=model["repo"], commit=model["commit"], tasks=names, values=[values.get(name) for name in names],
            retention=share_of(model, "retention"), gain=share_of(model, "gain_kept"),
        )
        for model, values in zip(found, by_task, strict=True)
    ]
