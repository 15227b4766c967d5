"""Calibration tasks as a search asks them: in two stretches, of points between two models, with slopes where it can be.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from worker.evaluation.bench import AnyBench, Bench
from worker.evaluation.bootstrap import Floats
from worker.evaluation.candidates import Between, Strengths
from worker.evaluation.language_model import LanguageModel
from worker.evaluation.likelihood import Span, likelihoods
from worker.evaluation.sheets import Sheet
from worker.evaluation.sides import Part, Sheets, Sides
from worker.evaluation.slopes import slopes as slopes_of
from worker.evaluation.trials import Stretch, Trial

CHECKED = 3
"""of each task's items every third is kept from the search"""


@dataclass(frozen=True)
class Asked:
    """One calibration task."""

    label: str
    bench: AnyBench
    part: Part


class BenchYardstick:
    """Measures a point on lm-eval's tasks.

    Where all tasks are losses over whole texts, a stretch costs its own items; else all items are asked at once, and
    the stretches are cut out of the sheets.
    """

    def __init__(
        self, between: Between, tokenizer: Any, tasks: Sequence[Asked], *, told: Callable[[], None] = lambda: None
    ) -> None:
        self._between = between
        self._model = LanguageModel(between.model, tokenizer, told=told)
        self._tasks = tasks
        self._told = told
        losses = [(one.label, one.bench) for one in tasks if isinstance(one.bench, Bench) and _rolls(one.bench)]
        every = len(losses) == len(tasks)
        self._spans = {label: _spans(bench, self._model) for label, bench in losses} if every else {}
        self._wholes: dict[tuple[tuple[str, float], ...], Sheets] = {}  # a point is asked for stretch by stretch

    @property
    def names(self) -> tuple[str, ...]:
        return self._between.names

    @property
    def sloped(self) -> bool:
        return bool(self._spans)

    def share(self, stretch: Stretch) -> float:
        if not self.sloped:
            return float(stretch == "search")
        tokens = {each: sum(_scored(items, each) for items in self._spans.values()) for each in ("search", "check")}
        return tokens[stretch] / sum(tokens.values())

    def measure(self, strengths: Strengths, stretch: Stretch, *, slopes: bool) -> Trial:
        if not self.sloped:
            return Trial(sheets={label: cut(sheet, stretch) for label, sheet in self._whole(strengths).items()})
        self._between.move(strengths)
        sheets: dict[str, Sheet] = {}
        found: dict[str, Floats] = {}
        for label, items in self._spans.items():
            own = _of(items, stretch)
            spans = [span for item in own for span in item]
            if slopes:
                told, slope = slopes_of(self._between, spans, told=self._told)
                nats = [float(one) for one in told]
                found[label] = slope / sum(span.scored for span in spans)
            else:
                answers = likelihoods(self._between.model, spans, batch_tokens=4096, told=lambda _: self._told())
                nats = [-one.total for one in answers]
            sheets[label] = _sheet(label, own, nats, stretch=stretch)
        return Trial(sheets=sheets, slopes=found if slopes else None)

    def sides(self, stretch: Stretch, *, seed: int, ask: Callable[[Strengths, Stretch], Trial] | None = None) -> Sides:
        """With the sheets of both ends; `ask` is who measures them, if somebody keeps what was measured."""
        ask = ask or (lambda strengths, stretch: self.measure(strengths, stretch, slopes=False))
        ends = (dict.fromkeys(self.names, 0.0), dict.fromkeys(self.names, 1.0))
        base, adapted = (ask(end, stretch).sheets for end in ends)
        return Sides(base=base, adapted=adapted, parts={one.label: one.part for one in self._tasks}, seed=seed)

    def _whole(self, strengths: Strengths) -> Sheets:
        point = tuple(sorted(strengths.items()))
        if point not in self._wholes:
            self._between.move(strengths)
            asked = {one.label: one.bench.ask(self._model) for one in self._tasks}
            self._wholes[point] = {label: sheet.model_copy(update={"task": label}) for label, sheet in asked.items()}
        return self._wholes[point]


def _rolls(bench: Bench) -> bool:
    return str(bench.task.OUTPUT_TYPE) == "loglikelihood_rolling"


def _spans(bench: Bench, model: LanguageModel) -> list[list[Span]]:
    """Of each item of a task, what is scored."""
    requests = sorted(bench.task.instances, key=lambda request: int(request.doc_id))
    return [model.rolling_spans(*request.args) for request in requests]


def cut(sheet: Sheet, stretch: Stretch) -> Sheet:
    """A stretch of a sheet."""
    keep = [i for i in range(len(sheet.items)) if _within(i, stretch)] or [0]
    parts: Mapping[str, Any] = {
        name: tuple(getattr(sheet, name)[i] for i in keep) for name in ("items", "values", "weights")
    }
    return sheet.model_copy(update=dict(parts))


def _within(i: int, stretch: Stretch) -> bool:
    return (i % CHECKED == CHECKED - 1) == (stretch == "check")


def _of(items: Sequence[list[Span]], stretch: Stretch) -> list[list[Span]]:
    """A task with fewer than three items has its first one in both stretches."""
    return [spans for i, spans in enumerate(items) if _within(i, stretch)] or [items[0]]


def _scored(items: Sequence[list[Span]], stretch: Stretch) -> int:
    return sum(span.scored for spans in _of(items, stretch) for span in spans)


def _sheet(label: str, items: Sequence[list[Span]], nats: list[float], *, stretch: Stretch) -> Sheet:
    rest = iter(nats)
    return Sheet(
        task=label, kind="loss", metric="nll", items=tuple(f"{stretch}{i:010d}" for i in range(len(items))),
        values=tuple(sum(next(rest) for _ in spans) for spans in items),
        weights=tuple(float(sum(span.scored for span in spans)) for spans in items),
    )
