"""The answer sheets of a base and its experts, and what any model's sheets say beside them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from worker.evaluation.bootstrap import Estimate, estimate, means
from worker.evaluation.measures import Measures, Question, Role, Summary, measure
from worker.evaluation.sheets import Sheet
from worker.report import schema

if TYPE_CHECKING:  # lm-eval is an extra
    from worker.evaluation.preparation import Ready

Sheets = Mapping[str, Sheet]
"""answer sheets of one model by the task's label"""
PointKind = Literal["base", "adapted", "candidate", "control", "chosen"]
_NOTHING = Estimate(value=None)


@dataclass(frozen=True, kw_only=True)
class Parents:
    """What base and experts answered. `adapted` is by the experts' names, in the recipe's order."""

    general: "Sequence[Ready]"
    domain: "Sequence[Ready]"
    base: Sheets
    adapted: Mapping[str, Sheets]
    seed: int

    def measure(self, model: Sheets) -> Measures:
        """Retention, gain kept and the rest of a model that answered the same tasks."""
        roles: list[tuple[Role, Ready]] = [("general", one) for one in self.general]
        roles += [("domain", one) for one in self.domain]
        return measure([self._question(one, role=role, model=model) for role, one in roles], seed=self.seed)

    def point(
        self, model: Sheets, *, kind: PointKind, name: str, label: str, seed: int | None = None,
        share: float | None = None, on: Literal["held_out", "calibration"] = "held_out",
        settings: Mapping[str, Any] | None = None,
    ) -> schema.Point:
        """A model on the trade-off between retention and gain kept."""
        found = self.measure(model)
        return schema.Point(
            kind=kind, name=name, label=label, settings=dict(settings or {}), seed=seed, share=share, on=on,
            retention=_mean(found.retention), gain_kept=_mean(found.gain_kept),
        )

    def _question(self, one: "Ready", *, role: Role, model: Sheets) -> Question:
        label = one.label
        return Question(
            role=role, ability=one.task.ability, weight=one.task.weight, base=self.base[label], merged=model[label],
            adapted={name: sheets[label] for name, sheets in self.adapted.items()},
        )


def values(sheets: Sheets, *, seed: int) -> tuple[schema.Value, ...]:
    """Each task's mean with its interval, of one model alone."""
    return tuple(
        schema.Value(
            task=label, kind=sheet.kind, metric=sheet.metric, unit=sheet.unit, items=len(sheet.items),
            value=estimate(means([sheet], seed=seed)[0]),
        )
        for label, sheet in sheets.items()
    )


def document(models: Mapping[str, Sheets]) -> dict[str, Any]:
    """All answers by task, then by model: what is kept beside the report."""
    tasks: dict[str, Any] = {}
    for name, sheets in models.items():
        for label, sheet in sheets.items():
            about = {"kind": sheet.kind, "metric": sheet.metric, "unit": sheet.unit, "items": list(sheet.items)}
            entry = tasks.setdefault(label, {**about, "models": {}})
            weights = {"weights": list(sheet.weights)} if sheet.kind == "loss" else {}
            entry["models"][name] = {"values": list(sheet.values), **weights}
    return {"tasks": tasks}


def _mean(summary: Summary | None) -> Estimate:
    return summary.mean if summary else _NOTHING
