"""Beside the result of `spear`: the controls at matched strength, a diagnosis, and what the scores predicted."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from worker.evaluation.identity import Key
from worker.pipeline.evaluate import Evaluator
from worker.pipeline.score import parameters
from worker.pipeline.searching import Found, crew_for, pair
from worker.pipeline.select import rules_of, unscored
from worker.report import schema
from worker.scores import Row, Selection

if TYPE_CHECKING:  # they need lm-eval, which is an extra
    from worker.evaluation.answers import Parents
    from worker.evaluation.bootstrap import Floats
    from worker.evaluation.candidates import Strengths
    from worker.evaluation.controls import Candidate, Filtered
    from worker.evaluation.crew import Crew
    from worker.evaluation.diagnosis import Probe
    from worker.evaluation.preparation import Ready
    from worker.evaluation.sheets import Sheet
    from worker.evaluation.sides import Sheets


@dataclass(frozen=True, kw_only=True)
class Controls:
    """What else is measured of a restoration, in memory; to be handed to `evaluate` as further work."""

    rows: Sequence[Row]
    selection: Selection
    found: Found | None = None

    def __call__(self, evaluator: Evaluator, parents: "Parents") -> Mapping[str, Any]:
        """`points`, `diagnosis`, `prediction`, and of a search its facts."""
        searched = {"search": self.found.facts} if self.found else {}
        points = self.found.points if self.found else ()
        if not evaluator.evaluation.controls:
            return {"points": points, **searched}
        with pair(evaluator) as (between, tokenizer), crew_for(evaluator, between, filtered=True) as crew:
            from worker.evaluation.controls import Filtered  # noqa: PLC0415

            booth = Booth(evaluator, parents, Filtered(between), tokenizer, self.selection.decisions, crew=crew)
            work = self._work(booth)
        return {"points": (*points, *work.pop("points")), **work, **searched}

    def _work(self, booth: "Booth") -> dict[str, Any]:
        from worker.evaluation.prediction import sampled  # noqa: PLC0415

        task = booth.evaluator.task
        rules = rules_of(parameters(task))
        candidates = booth.controls(self.rows, others=unscored(task, self.rows), rules=rules, found=self.found)
        probes = booth.probes()
        sample = sampled(self.rows)
        booth.measure([*candidates, *booth.beside(probes, sample, t=rules.t)])
        points, asked = booth.points(candidates)
        diagnosis = booth.diagnosis(probes, asked, auto=self.found is not None)
        return {"points": points, "diagnosis": diagnosis, "prediction": booth.prediction(sample, t=rules.t)}


@dataclass(frozen=True)
class Errand:
    """A point, and the tasks whose sheets of it are missing."""

    candidate: "Candidate"
    labels: tuple[str, ...]


class Booth:
    """The live pair, and the held-out tasks that its points are asked."""

    def __init__(
        self, evaluator: Evaluator, parents: "Parents", model: "Filtered", tokenizer: Any, decisions: "Strengths", *,
        crew: "Crew",
    ) -> None:  # fmt: skip
        from worker.evaluation.language_model import LanguageModel  # noqa: PLC0415
        from worker.evaluation.sides import Part, Sides  # noqa: PLC0415

        self.evaluator = evaluator
        self.parents = parents
        self._model = model
        self.sizes: dict[str, int] = model.between.sizes
        self.decisions = {name: t for name, t in decisions.items() if name in self.sizes}
        self._crew = crew
        self._asked = LanguageModel(model.between.model, tokenizer, told=crew.beat)
        parts = {one.label: Part("general", one.task.weight) for one in parents.general}
        parts |= {one.label: Part("domain", one.task.weight) for one in parents.domain}
        adapted = next(iter(parents.adapted.values()))
        self.sides = Sides(base=parents.base, adapted=adapted, parts=parts, seed=parents.seed)

    @property
    def defined(self) -> bool:
        """Whether something was forgotten and something gained: else there are no shares."""
        return bool(self.sides.defined(0) and self.sides.defined(1))

    def controls(
        self, rows: Sequence[Row], *, others: Sequence[Row], rules: Any, found: Found | None
    ) -> "list[Candidate]":
        """All controls; of a searched frontier its other points too."""
        from worker.evaluation.controls import Candidate, matched  # noqa: PLC0415

        every = matched(self.sizes, self.decisions, rows, others=others, rules=rules)
        every += [
            Candidate(name="auto", label=label, strengths=strengths)
            for label, strengths in (found.frontier if found else {}).items()
        ]
        return every

    def probes(self) -> "list[Probe]":
        from worker.evaluation.diagnosis import probes  # noqa: PLC0415
        from worker.evaluation.groups import grouped  # noqa: PLC0415

        return list(probes(self.decisions, grouped(self.sizes)))

    def points(
        self, candidates: "Sequence[Candidate]"
    ) -> "tuple[tuple[schema.Point, ...], list[tuple[Candidate, Sheets]]]":
        """Each candidate's point, and its sheets."""
        asked = [(candidate, self._ask(candidate)) for candidate in candidates]
        points = tuple(
            self.parents.point(
                sheets, kind="candidate" if one.name == "auto" else "control", name=one.name, label=one.label,
                seed=one.seed, share=one.share(self.sizes), settings=one.settings,
            )
            for one, sheets in asked
        )
        return points, asked

    def diagnosis(
        self, probes: "Sequence[Probe]", asked: "Sequence[tuple[Candidate, Sheets]]", *, auto: bool
    ) -> tuple[schema.Diagnosis, ...]:
        """Where nothing was forgotten or gained there are no shares: then that is what is said."""
        from worker.evaluation.diagnosis import diagnose, unjudged  # noqa: PLC0415

        if not self.defined:
            forgotten, gained = (bool(self.sides.defined(side)) for side in (0, 1))
            return (schema.Diagnosis.model_validate(unjudged(forgotten=forgotten, gained=gained)),)
        chosen = self._ask(_probe("the result", self.decisions))
        each = [self._ask(_probed(probe)) for probe in probes]
        controls = {one.label: sheets for one, sheets in asked if one.name != "auto"}
        samples = self.sides.samples([chosen, *each, *controls.values()])
        probed = list(zip(probes, samples[1 : 1 + len(each)], strict=True))
        beside: Mapping[str, Floats] = dict(zip(controls, samples[1 + len(each) :], strict=True))
        curve = {one.label for one, _ in asked if one.name == "uniform"}
        found = diagnose(samples[0], probed, auto=auto, controls=beside, curve=curve)
        return tuple(schema.Diagnosis.model_validate(one) for one in found)

    def prediction(self, sample: Sequence[Row], *, t: float) -> dict[str, Any] | None:
        """Tensors restored alone, at the recipe's strength."""
        from worker.evaluation.prediction import predict  # noqa: PLC0415

        rows = [row for row in sample if row["tensor"] in self.sizes]
        if not self.defined:
            return None
        before = self.sides.values(self.sides.adapted)[0]
        changes = [self.sides.values(self._ask(_alone(row, t=t)))[0] - before for row in rows]
        return predict(rows, changes, t=_below_one(t), seed=self.parents.seed)

    def beside(self, probes: "Sequence[Probe]", sample: Sequence[Row], *, t: float) -> "list[Candidate]":
        """What diagnosis and prediction look at beside the controls."""
        if not self.defined:
            return []
        rows = [row for row in sample if row["tensor"] in self.sizes]
        return [
            _probe("the result", self.decisions), *(_probed(probe) for probe in probes),
            *(_alone(row, t=t) for row in rows),
        ]

    def measure(self, candidates: "Sequence[Candidate]") -> None:
        """Have every candidate's sheets known: by the crew, but for those of the cache."""
        evaluator, errands, scheduled = self.evaluator, [], set[str]()
        evaluator.reporter.stage("controls", total=len(candidates), unit="points")
        for one in candidates:
            digest = self._digest(one)
            labels = [] if digest in scheduled else [ready.label for ready, sheet in self._found(digest) if not sheet]
            scheduled.add(digest)
            errands.append(Errand(one, tuple(labels)))
        for done, sheets in enumerate(self._performed(errands), start=1):
            one = candidates[done - 1]
            for ready, _ in self._found(self._digest(one)):
                if ready.label in sheets:
                    evaluator.kept.keep(self._key(self._digest(one), ready), sheets[ready.label])
            evaluator.reporter.step(done=done, name=one.label)

    def _performed(self, errands: "Sequence[Errand]") -> "Iterator[Sheets]":
        """The missing sheets of each errand, in order."""
        needed = any(one.labels and one.candidate.filtered for one in errands)
        if needed and self._crew.size > 1:
            self._model.reserve()
        self._crew.start(self._perform)
        if needed and self._crew.size > 1:
            largest = sorted(self.sizes, key=lambda name: (-self.sizes[name], name))
            for _ in self._crew.each(largest):
                self.evaluator.reporter.beat()
        answers = self._crew.each([one for one in errands if one.labels])
        for one in errands:
            yield next(answers) if one.labels else {}

    def _perform(self, errand: "Errand | str") -> "Sheets":
        """In whichever process: a point's missing sheets; or one of DG-Hard's weights, by its name."""
        if isinstance(errand, str):
            self._model.fill(errand)
            return {}
        self._model.move(errand.candidate)
        readies = [one for one in self.evaluator.benches.held_out if one.label in errand.labels]
        return {one.label: one.bench.ask(self._asked) for one in readies}

    def _ask(self, candidate: "Candidate") -> "Sheets":
        """The sheets of a point that was measured."""
        found = {ready.label: sheet for ready, sheet in self._found(self._digest(candidate)) if sheet}
        return {label: sheet.model_copy(update={"task": label}) for label, sheet in found.items()}

    def _found(self, digest: str) -> "list[tuple[Ready, Sheet | None]]":
        """Of each task the sheet, where it is known."""
        readies = self.evaluator.benches.held_out
        return [(one, self.evaluator.kept.find(self._key(digest, one))) for one in readies]

    def _key(self, digest: str, ready: "Ready") -> Key:
        return Key(model=digest, task=ready.digest, settings=self.evaluator.settings)

    def _digest(self, candidate: "Candidate") -> str:
        """All that a point between these two models depends on."""
        ends = [subject.digest for subject in self.evaluator.subjects()]
        told = json.dumps(["point", ends, sorted(candidate.strengths.items()), candidate.filtered], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()


def _probe(label: str, strengths: "Strengths") -> "Candidate":
    from worker.evaluation.controls import Candidate  # noqa: PLC0415

    return Candidate(name="probe", label=label, strengths=strengths)


def _probed(probe: "Probe") -> "Candidate":
    return _probe(f"{probe.group} {probe.way}", probe.strengths)


def _alone(row: Row, *, t: float) -> "Candidate":
    """The adapted model with one tensor restored."""
    return _probe(row["name"], {row["tensor"]: _below_one(t)})


def _below_one(t: float) -> float:
    """A strength that moves something."""
    return t if t < 1 else 0.5


def further(
    evaluator: Evaluator | None, *, rows: Sequence[Row], selection: Selection | None, found: Found | None
) -> "Sequence[Callable[[Evaluator, Parents], Mapping[str, Any]]]":
    """What a merge by `spear` has to find out beside its result."""
    if evaluator is None or selection is None:
        return ()
    return (Controls(rows=rows, selection=selection, found=found),)
