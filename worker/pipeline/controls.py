"""Beside the result of `spear`: the controls at matched strength, a diagnosis, and what the scores predicted."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from worker.evaluation.identity import Key
from worker.pipeline.evaluate import Evaluator
from worker.pipeline.score import parameters
from worker.pipeline.searching import Found, pair
from worker.pipeline.select import rules_of, unscored
from worker.report import schema
from worker.scores import Row, Selection

if TYPE_CHECKING:  # they need lm-eval, which is an extra
    from worker.evaluation.answers import Parents
    from worker.evaluation.bootstrap import Floats
    from worker.evaluation.candidates import Strengths
    from worker.evaluation.controls import Candidate
    from worker.evaluation.diagnosis import Probe
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
        with pair(evaluator) as (between, tokenizer):
            from worker.evaluation.controls import Filtered  # noqa: PLC0415

            booth = Booth(evaluator, parents, Filtered(between), tokenizer, self.selection.decisions)
            work = self._work(booth)
        return {"points": (*points, *work.pop("points")), **work, **searched}

    def _work(self, booth: "Booth") -> dict[str, Any]:
        from worker.evaluation.prediction import sampled  # noqa: PLC0415

        task = booth.evaluator.task
        rules = rules_of(parameters(task))
        candidates = booth.controls(self.rows, others=unscored(task, self.rows), rules=rules, found=self.found)
        probes = booth.probes()
        sample = sampled(self.rows)
        booth.begin(len(candidates) + len(probes) + len(sample) + 1)
        points, asked = booth.points(candidates)
        diagnosis = booth.diagnosis(probes, asked, auto=self.found is not None)
        return {"points": points, "diagnosis": diagnosis, "prediction": booth.prediction(sample, t=rules.t)}


class Booth:
    """The live pair, and the held-out tasks that its points are asked."""

    def __init__(
        self, evaluator: Evaluator, parents: "Parents", model: Any, tokenizer: Any, decisions: "Strengths"
    ) -> None:
        from worker.evaluation.language_model import LanguageModel  # noqa: PLC0415
        from worker.evaluation.sides import Part, Sides  # noqa: PLC0415

        self.evaluator = evaluator
        self.parents = parents
        self._model = model
        self.sizes: dict[str, int] = model.between.sizes
        self.decisions = {name: t for name, t in decisions.items() if name in self.sizes}
        self._asked = LanguageModel(model.between.model, tokenizer, told=evaluator.reporter.beat)
        parts = {one.label: Part("general", one.task.weight) for one in parents.general}
        parts |= {one.label: Part("domain", one.task.weight) for one in parents.domain}
        adapted = next(iter(parents.adapted.values()))
        self.sides = Sides(base=parents.base, adapted=adapted, parts=parts, seed=parents.seed)
        self._done = 0

    def begin(self, count: int) -> None:
        self.evaluator.reporter.stage("controls", total=count, unit="points")

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
        """Nothing where nothing was forgotten or gained: there are no shares then."""
        from worker.evaluation.diagnosis import diagnose  # noqa: PLC0415

        if not self.sides.defined(0) or not self.sides.defined(1):
            return ()
        chosen = self._moved("the result", self.decisions)
        each = [self._moved(f"{probe.group} {probe.way}", probe.strengths) for probe in probes]
        controls = {one.label: sheets for one, sheets in asked if one.name != "auto"}
        samples = self.sides.samples([chosen, *each, *controls.values()])
        probed = list(zip(probes, samples[1 : 1 + len(each)], strict=True))
        beside: Mapping[str, Floats] = dict(zip(controls, samples[1 + len(each) :], strict=True))
        found = diagnose(samples[0], probed, auto=auto, controls=beside)
        return tuple(schema.Diagnosis.model_validate(one) for one in found)

    def prediction(self, sample: Sequence[Row], *, t: float) -> dict[str, Any] | None:
        """Tensors restored alone, at the recipe's strength."""
        from worker.evaluation.prediction import predict  # noqa: PLC0415

        rows = [row for row in sample if row["tensor"] in self.sizes]
        if not self.sides.defined(0) or not self.sides.defined(1):
            return None
        t = t if t < 1 else 0.5
        before = self.sides.values(self.sides.adapted)[0]
        changes = [self.sides.values(self._moved(row["name"], {row["tensor"]: t}))[0] - before for row in rows]
        return predict(rows, changes, t=t, seed=self.parents.seed)

    def _moved(self, label: str, strengths: "Strengths") -> "Sheets":
        from worker.evaluation.controls import Candidate  # noqa: PLC0415

        return self._ask(Candidate(name="probe", label=label, strengths=strengths))

    def _ask(self, candidate: "Candidate") -> "Sheets":
        """The sheets of a point; from the cache where they are known."""
        evaluator, found, missing = self.evaluator, {}, []
        digest = self._digest(candidate)
        for one in evaluator.benches.held_out:
            key = Key(model=digest, task=one.digest, settings=evaluator.settings)
            sheet = evaluator.kept.find(key)
            if sheet:
                found[one.label] = sheet.model_copy(update={"task": one.label})
            else:
                missing.append((key, one))
        if missing:
            self._model.move(candidate)
        for key, one in missing:
            sheet = one.bench.ask(self._asked)
            evaluator.kept.keep(key, sheet)
            found[one.label] = sheet.model_copy(update={"task": one.label})
        self._done += 1
        evaluator.reporter.step(done=self._done, name=candidate.label)
        return found

    def _digest(self, candidate: "Candidate") -> str:
        """All that a point between these two models depends on."""
        ends = [subject.digest for subject in self.evaluator.subjects()]
        told = json.dumps(["point", ends, sorted(candidate.strengths.items()), candidate.filtered], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()


def further(
    evaluator: Evaluator | None, *, rows: Sequence[Row], selection: Selection | None, found: Found | None
) -> "Sequence[Callable[[Evaluator, Parents], Mapping[str, Any]]]":
    """What a merge by `spear` has to find out beside its result."""
    if evaluator is None or selection is None:
        return ()
    return (Controls(rows=rows, selection=selection, found=found),)
