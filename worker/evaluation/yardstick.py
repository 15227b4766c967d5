"""Calibration tasks as a search asks them: in two stretches, of points between two models, with slopes where it can be.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from worker.evaluation.bench import AnyBench, Bench
from worker.evaluation.bootstrap import Floats
from worker.evaluation.candidates import Between, Strengths
from worker.evaluation.crew import Crew
from worker.evaluation.language_model import BATCH_TOKENS, LanguageModel
from worker.evaluation.likelihood import Span, batches, likelihoods
from worker.evaluation.sheets import Sheet
from worker.evaluation.sides import Part, Sheets, Sides
from worker.evaluation.slopes import SLOPED_TOKENS
from worker.evaluation.slopes import slopes as slopes_of
from worker.evaluation.trials import Ask, Stretch, Trial

CHECKED = 3
"""of each task's items every third is kept from the search"""
Point = tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Asked:
    """One calibration task."""

    label: str
    bench: AnyBench
    part: Part


@dataclass(frozen=True)
class Piece:
    """What is measured of a point in one go: a batch of a task's spans (all of the stretch), or all of its items."""

    label: str
    spans: tuple[int, ...] = ()
    cost: float = 1.0


@dataclass(frozen=True)
class Errand:
    """Pieces of one point for one process, by their numbers."""

    ask: Ask
    pieces: Mapping[int, Piece]


class BenchYardstick:
    """Measures a point on lm-eval's tasks.

    Where all tasks are losses over whole texts, a stretch costs its own items; else all items are asked at once, and
    the stretches are cut out of the sheets. With a crew of several processes, which is started with `perform`, points
    are measured beside each other, and what is left of fewer points than processes is cut into pieces. The pieces are
    the same with one process, and put together in the same order: so are the sheets, to the last bit.
    """

    def __init__(
        self, between: Between, tokenizer: Any, tasks: Sequence[Asked], *, crew: Crew | None = None
    ) -> None:
        self._crew = crew or Crew(size=1)
        if crew is None:
            self._crew.start(self.perform)
        self._between = between
        self._model = LanguageModel(between.model, tokenizer, told=self._crew.beat)
        self._tasks = tasks
        losses = [(one.label, one.bench) for one in tasks if isinstance(one.bench, Bench) and _rolls(one.bench)]
        every = len(losses) == len(tasks)
        self._spans = {label: _spans(bench, self._model) for label, bench in losses} if every else {}
        self._wholes: dict[Point, Sheets] = {}  # a point is asked for stretch by stretch

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
        return next(self.measure_all([Ask(strengths, stretch, slopes=slopes)]))

    def measure_all(self, asks: Sequence[Ask]) -> Iterator[Trial]:
        """Several points, in their order."""
        cut = self._cut(asks)
        answers = self._crew.each([errand for errands in cut for errand in errands])
        for ask, errands in zip(asks, cut, strict=True):
            found: dict[int, Any] = {}
            for _ in errands:
                found |= next(answers)
            yield self._trial(ask, [found[number] for number in sorted(found)])

    def perform(self, errand: Errand) -> dict[int, Any]:
        """What the pieces come to, by their numbers; in whichever process."""
        self._between.move(errand.ask.strengths)
        return {number: self._measured(errand.ask, piece) for number, piece in errand.pieces.items()}

    def sides(self, stretch: Stretch, *, seed: int, ask: Callable[[Strengths, Stretch], Trial] | None = None) -> Sides:
        """With the sheets of both ends; `ask` is who measures them, if somebody keeps what was measured."""
        ask = ask or (lambda strengths, stretch: self.measure(strengths, stretch, slopes=False))
        base, adapted = (ask(end, stretch).sheets for end in self.ends)
        return Sides(base=base, adapted=adapted, parts={one.label: one.part for one in self._tasks}, seed=seed)

    @property
    def ends(self) -> tuple[Strengths, Strengths]:
        """The strengths of the base and of the adapted model."""
        return dict.fromkeys(self.names, 0.0), dict.fromkeys(self.names, 1.0)

    def _cut(self, asks: Sequence[Ask]) -> list[list[Errand]]:
        """Each point's errands; none where its sheets are known, or will be by then."""
        known = set(self._wholes)
        new = []
        for ask in asks:
            new.append(self.sloped or _point(ask.strengths) not in known)
            known.add(_point(ask.strengths))
        whole = sum(new) - sum(new) % self._crew.size  # so many keep all processes busy as they are
        cut: list[list[Errand]] = []
        for ask, wanted in zip(asks, new, strict=True):
            parts = 1 if sum(map(bool, cut)) < whole else self._crew.size
            cut.append(_errands(ask, self._pieces(ask), parts=parts) if wanted else [])
        return cut

    def _pieces(self, ask: Ask) -> list[Piece]:
        if not self.sloped:
            return [Piece(one.label, cost=one.bench.size) for one in self._tasks]
        most = SLOPED_TOKENS if ask.slopes else BATCH_TOKENS
        found = []
        for label in self._spans:
            spans = self._of(label, ask.stretch)
            for batch in batches(spans, batch_tokens=most):
                tokens = len(batch) * len(spans[batch[0]].tokens)
                found.append(Piece(label, tuple(sorted(batch)), cost=tokens))
        return found

    def _measured(self, ask: Ask, piece: Piece) -> Any:
        """A sheet, or the nats of a batch's spans and where asked for their slopes."""
        if not self.sloped:
            sheet = next(one for one in self._tasks if one.label == piece.label).bench.ask(self._model)
            return sheet.model_copy(update={"task": piece.label})
        every = self._of(piece.label, ask.stretch)
        spans = [every[i] for i in piece.spans]
        if ask.slopes:
            nats, slope = slopes_of(self._between, spans, told=self._crew.beat)
            return nats.tolist(), slope
        answers = likelihoods(
            self._between.model, spans, batch_tokens=BATCH_TOKENS, told=lambda _: self._crew.beat()
        )
        return [-one.total for one in answers], None

    def _trial(self, ask: Ask, found: Sequence[Any]) -> Trial:
        """Put together again; `found` is in the order of the pieces."""
        if not self.sloped:
            point = _point(ask.strengths)
            if found:
                self._wholes[point] = {sheet.task: sheet for sheet in found}
            return Trial(sheets={label: cut(sheet, ask.stretch) for label, sheet in self._wholes[point].items()})
        nats: dict[str, dict[int, float]] = {label: {} for label in self._spans}
        slopes: dict[str, Floats] = {}
        for piece, (told, slope) in zip(self._pieces(ask), found, strict=True):
            nats[piece.label] |= zip(piece.spans, told, strict=True)
            if ask.slopes:
                slopes[piece.label] = slopes[piece.label] + slope if piece.label in slopes else slope
        sheets = {label: self._sheet(label, ask.stretch, each) for label, each in nats.items()}
        means = {label: slope / sum(one.scored for one in self._of(label, ask.stretch))
                 for label, slope in slopes.items()}  # fmt: skip
        return Trial(sheets=sheets, slopes=means if ask.slopes else None)

    def _of(self, label: str, stretch: Stretch) -> list[Span]:
        return [span for item in _of(self._spans[label], stretch) for span in item]

    def _sheet(self, label: str, stretch: Stretch, nats: Mapping[int, float]) -> Sheet:
        return _sheet(label, _of(self._spans[label], stretch), [nats[i] for i in range(len(nats))], stretch=stretch)


def _errands(ask: Ask, pieces: Sequence[Piece], *, parts: int) -> list[Errand]:
    """The pieces on so many errands of about one cost, or fewer."""
    loads: list[dict[int, Piece]] = [{} for _ in range(min(parts, len(pieces)))]
    for number in sorted(range(len(pieces)), key=lambda i: (-pieces[i].cost, i)):
        min(loads, key=lambda load: sum(piece.cost for piece in load.values()))[number] = pieces[number]
    return [Errand(ask, load) for load in loads]


def _point(strengths: Strengths) -> Point:
    return tuple(sorted(strengths.items()))


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
