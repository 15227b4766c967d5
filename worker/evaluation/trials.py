"""What a search has measured, so that no point is measured twice, in this process or after it was killed."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from worker.evaluation.bootstrap import Floats
from worker.evaluation.candidates import Strengths
from worker.evaluation.sheets import Sheet

Stretch = Literal["search", "check"]
"""two stretches of the calibration set: where the search looks, and where its choice is checked"""


@dataclass(frozen=True)
class Ask:
    """A point, a stretch, and whether slopes are wanted."""

    strengths: Strengths
    stretch: Stretch
    slopes: bool = False


@dataclass(frozen=True)
class Trial:
    """One measured point: the sheets by task and, where they were asked for, the slopes of the tasks' means."""

    sheets: Mapping[str, Sheet]
    slopes: Mapping[str, Floats] | None = None


class Yardstick(Protocol):
    """Measures points between two models on calibration texts."""

    @property
    def names(self) -> tuple[str, ...]:
        """The weights that have a strength."""

    @property
    def sloped(self) -> bool:
        """Whether slopes can be had: all tasks are losses."""

    def share(self, stretch: Stretch) -> float:
        """The share of the calibration set that a stretch is."""

    def measure(self, strengths: Strengths, stretch: Stretch, *, slopes: bool) -> Trial:
        """The point with these strengths; its slopes are by `names`."""


class Trials:
    """A yardstick with a memory, and the bill: `spent` counts evaluations, 1 is a pass over the calibration set.

    A point with slopes costs three passes (forward and backward). What the journal knows of an earlier attempt is
    billed as then, so that a search that goes on makes the same choices.
    """

    def __init__(
        self, yardstick: Yardstick, *, journal: Path | None = None,
        ahead: Callable[[Sequence[Ask]], Iterator[Trial]] | None = None,
    ) -> None:  # fmt: skip
        """`ahead` measures several points beside each other, where somebody can; their trials come in order."""
        self.yardstick = yardstick
        self._ahead = ahead
        self.spent = 0.0
        self._journal = journal
        self._known: dict[str, Trial] = {}
        self._billed: set[str] = set()
        if journal and journal.exists():
            self._read(journal)

    def ask(self, strengths: Strengths, stretch: Stretch, *, slopes: bool = False) -> Trial:
        """The trial, from memory where it is known; one with slopes serves who asks without."""
        slopes = slopes or self._served(Ask(strengths, stretch))
        key = _key(strengths, stretch, slopes=slopes)
        if key not in self._billed:
            self._billed.add(key)
            self.spent += self.cost(stretch, slopes=slopes)
        return self._trial(key, strengths, stretch, slopes=slopes)

    def foresee(self, asks: Sequence[Ask]) -> None:
        """What is going to be asked for is measured at once, where that is quicker. It is billed when it is asked."""
        keys = {_key(ask.strengths, ask.stretch, slopes=ask.slopes): ask for ask in asks}
        new = {key: ask for key, ask in keys.items() if key not in self._known and not self._served(ask)}
        if self._ahead and len(new) > 1:
            for key, trial in zip(new, self._ahead(list(new.values())), strict=True):
                self._keep(key, trial)

    def end(self, strengths: Strengths, stretch: Stretch) -> Trial:
        """One of the two models themselves, without a bill: shares are counted from them."""
        return self._trial(_key(strengths, stretch, slopes=False), strengths, stretch, slopes=False)

    def cost(self, stretch: Stretch, *, slopes: bool = False) -> float:
        """In evaluations."""
        return self.yardstick.share(stretch) * (3 if slopes else 1)

    def _served(self, ask: Ask) -> bool:
        """Whether the point was asked for with slopes."""
        return _key(ask.strengths, ask.stretch, slopes=True) in self._billed

    def _trial(self, key: str, strengths: Strengths, stretch: Stretch, *, slopes: bool) -> Trial:
        if key not in self._known:
            self._keep(key, self.yardstick.measure(strengths, stretch, slopes=slopes))
        return self._known[key]

    def _keep(self, key: str, trial: Trial) -> None:
        self._known[key] = trial
        if self._journal:
            record = {
                "key": key, "sheets": {label: sheet.model_dump(mode="json") for label, sheet in trial.sheets.items()},
                "slopes": trial.slopes and {label: slope.tolist() for label, slope in trial.slopes.items()},
            }
            with self._journal.open("a") as lines:
                lines.write("\n" + json.dumps(record) + "\n")  # what comes after half a line stands on its own

    def _read(self, journal: Path) -> None:
        for line in journal.read_text().splitlines():
            try:
                record = json.loads(line)
            except ValueError:  # half a line of a killed attempt
                continue
            slopes = record["slopes"] and {label: np.array(slope) for label, slope in record["slopes"].items()}
            sheets = {label: Sheet.model_validate(body) for label, body in record["sheets"].items()}
            self._known[record["key"]] = Trial(sheets=sheets, slopes=slopes)


def _key(strengths: Strengths, stretch: Stretch, *, slopes: bool) -> str:
    told = json.dumps([sorted((name, round(float(t), 9)) for name, t in strengths.items()), stretch, slopes])
    return hashlib.sha256(told.encode()).hexdigest()[:32]
