"""The two sides of a trade-off, retention and gain kept, of models that answered the same tasks as base and adapted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from worker.evaluation.bootstrap import Floats, means
from worker.evaluation.measures import Role, shares
from worker.evaluation.sheets import Sheet

Sheets = Mapping[str, Sheet]
"""answer sheets of one model by the task's label"""
RETENTION, GAIN = 0, 1


@dataclass(frozen=True)
class Part:
    """One task's place in the trade-off."""

    role: Role
    weight: float = 1.0

    @property
    def side(self) -> int:
        return RETENTION if self.role == "general" else GAIN


@dataclass(frozen=True, kw_only=True)
class Sides:
    """Base and adapted model's sheets, and what each task counts for. Tasks without a defined share do not count."""

    base: Sheets
    adapted: Sheets
    parts: Mapping[str, Part]
    seed: int = 0

    def defined(self, side: int) -> tuple[str, ...]:
        """The tasks of a side that something was forgotten or gained in."""
        mine = [label for label, part in self.parts.items() if part.side == side]
        return tuple(label for label in mine if np.isfinite(self._share(label, self.adapted[label].mean)))

    def values(self, sheets: Sheets) -> tuple[float, float]:
        """Retention and gain kept, as measured: weighted means over tasks."""
        retention, gain = (self._mean(side, {label: sheet.mean for label, sheet in sheets.items()}) for side in (0, 1))
        return retention, gain

    def slopes(self, sheets: Sheets, slopes: Mapping[str, Floats]) -> tuple[Floats, Floats]:
        """The slopes of both sides from those of the tasks' means."""
        return self._slope(RETENTION, sheets, slopes), self._slope(GAIN, sheets, slopes)

    def samples(self, models: Sequence[Sheets]) -> Floats:
        """Models x 2 sides x (1 + ROUNDS): as measured, and of items drawn anew; the same draws for every model."""
        found = np.zeros((len(models), 2, 0))
        for side in (RETENTION, GAIN):
            labels = self.defined(side)
            weights = np.array([self.parts[label].weight for label in labels])
            each = np.stack([self._samples(label, models) for label in labels])
            mean = np.tensordot(weights, each, axes=1) / weights.sum()
            if not found.shape[2]:
                found = np.zeros((len(models), 2, mean.shape[1]))
            found[:, side] = mean
        return found

    def _samples(self, label: str, models: Sequence[Sheets]) -> Floats:
        base, adapted, *rest = means(
            [self.base[label], self.adapted[label], *(model[label] for model in models)], seed=self.seed
        )
        role, kind = self.parts[label].role, self.base[label].kind
        return np.stack([shares(base, adapted, one, role=role, kind=kind) for one in rest])

    def _mean(self, side: int, found: Mapping[str, float]) -> float:
        labels = self.defined(side)
        weights = [self.parts[label].weight for label in labels]
        return float(np.average([self._share(label, found[label]) for label in labels], weights=weights))

    def _slope(self, side: int, sheets: Sheets, slopes: Mapping[str, Floats]) -> Floats:
        """By the chain rule; a share is linear in the task's mean, so one difference is its exact slope."""
        labels = self.defined(side)
        total = sum(self.parts[label].weight for label in labels)
        each = [
            self.parts[label].weight / total * slopes[label]
            * (self._share(label, sheets[label].mean + 1.0) - self._share(label, sheets[label].mean))
            for label in labels
        ]  # fmt: skip
        found: Floats = np.sum(each, axis=0)
        return found

    def _share(self, label: str, mean: float) -> float:
        base, adapted, model = (np.array([one]) for one in (self.base[label].mean, self.adapted[label].mean, mean))
        return float(shares(base, adapted, model, role=self.parts[label].role, kind=self.base[label].kind)[0])
