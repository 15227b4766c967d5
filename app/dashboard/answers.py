"""One task item by item: which models answer what, and what the result lost most on. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.dashboard.charts import AnswerSheet, answer_sheet_chart
from app.dashboard.charts.matrix import Answer

RESULT = "result"
"""the name of what was merged, among the models of a sheet"""
RIGHT = 0.5
"""a score of at least this is a right answer"""
WORST = 20

Entry = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Lost:
    """One item with every model's value; `change` is the result against the base, below 0 where it is worse."""

    item: str
    values: Sequence[float]
    change: float


@dataclass(frozen=True, kw_only=True)
class TaskSheet:
    """What the page shows of one task."""

    task: str
    unit: str
    models: Sequence[str]
    chart: str
    worst: Sequence[Lost]


def task_sheet(entry: Entry, task: str, *, base: str | None) -> TaskSheet:
    """`entry` is one task of the document `sheets`; `base` is the base's name among its models."""
    names = sorted(entry["models"], key=lambda name: (name == RESULT, name != base, name))
    values = {name: entry["models"][name]["values"] for name in names}
    drawn = _chart(values, names, task=task) if entry["kind"] == "score" else ""
    sign = 1.0 if entry["kind"] == "score" else -1.0
    return TaskSheet(
        task=task, unit=entry.get("unit") or "", models=names, chart=drawn,
        worst=_worst(entry["items"], values, base=base, sign=sign),
    )  # fmt: skip


def _chart(values: Mapping[str, Sequence[float]], names: Sequence[str], *, task: str) -> str:
    """Items in the order of how many models answer them rightly."""
    right = {name: [value >= RIGHT for value in values[name]] for name in names}
    items = len(right[names[0]])
    order = sorted(range(items), key=lambda i: -sum(answers[i] for answers in right.values()))
    parents = [right[name] for name in names if name != RESULT]
    answers = [
        [_answer(right[name][i], [p[i] for p in parents] if name == RESULT else []) for i in order] for name in names
    ]
    shown = [name.rpartition("/")[2] for name in names]
    return answer_sheet_chart(AnswerSheet(models=shown, answers=answers, label=task))


def _answer(right: bool, parents: Sequence[bool]) -> Answer:
    if right:
        return "won" if parents and not any(parents) else "right"
    return "lost" if parents and all(parents) else "wrong"


def _worst(items: Sequence[Any], values: Mapping[str, Sequence[float]], *, base: str | None,
           sign: float) -> list[Lost]:  # fmt: skip
    if base is None or not {base, RESULT} <= values.keys():
        return []
    found = [
        Lost(item=str(item), values=[one[i] for one in values.values()],
             change=sign * (values[RESULT][i] - values[base][i]))
        for i, item in enumerate(items)
    ]  # fmt: skip
    return sorted((one for one in found if one.change < 0), key=lambda one: one.change)[:WORST]
