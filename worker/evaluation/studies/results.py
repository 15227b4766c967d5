"""Everything that was measured in a study, and the figures of one merge of it."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from app.recipes.study import Cell, Study
from worker.evaluation.bootstrap import Floats
from worker.evaluation.sheets import Kind, Sheet
from worker.evaluation.studies.answers import Answers, compare
from worker.evaluation.studies.gains import (
    About,
    Setup,
    Sheets,
    gain,
    outperformance,
    over_datasets,
    over_tasks,
    point,
    score,
)


@dataclass(frozen=True)
class Measured:
    """Answer sheets on one set of tasks: of the models by number (0 is the base), and of the cells by key."""

    tasks: tuple[About, ...]
    models: Mapping[int, Sheets]
    cells: Mapping[str, Sheets]


@dataclass(frozen=True)
class Results:
    """A finished study."""

    study: Study
    held_out: Measured
    calibration: Measured | None
    _rows: "dict[tuple[int, str], Row]" = field(default_factory=dict, repr=False, compare=False)

    def row(self, cell: Cell, *, of: Measured) -> "Row":
        """The plain figures of one merge, worked out once."""
        key = (id(of), cell.key)
        if key not in self._rows:
            self._rows[key] = Row(self, cell, of=of)
        return self._rows[key]

    @property
    def main_kind(self) -> Kind:
        """What merges are compared by: the commoner kind of the tasks reported on, if it can be chosen by as well."""
        shared = {about.kind for about in self.calibration.tasks} if self.calibration else set()
        return _commoner([about.kind for about in self.held_out.tasks], among=shared)

    def setup(self, cell: Cell, task: str, *, of: Measured) -> Setup:
        """The sheets that a merge is held against on one task."""
        parents = [of.models[number][task] for number in cell.constituents]
        return Setup(merged=of.cells[cell.key][task], parents=parents, reference=self._reference(cell, task, of=of))

    def merit(self, cells: Sequence[Cell], *, of: Measured) -> dict[str, float]:
        """Macro-Gain over the tasks of the main kind (of the commoner where there are none), by the cells' keys."""
        kind = _commoner([about.kind for about in of.tasks], among={self.main_kind})
        return {cell.key: self.row(cell, of=of).macro_gain[kind] for cell in cells}

    def _reference(self, cell: Cell, task: str, *, of: Measured) -> list[Sheet]:
        wanted = self.study.gain_reference
        if wanted == "mean":
            return [of.models[number][task] for number in cell.constituents]
        repos = [self.study.base.repo, *(expert.repo for expert in self.study.experts)]
        return [of.models[0 if wanted == "base" else repos.index(wanted)][task]]


def _commoner(kinds: Sequence[Kind], *, among: Collection[Kind]) -> Kind:
    counted = Counter(kind for kind in kinds if kind in among) or Counter(kinds)
    return "score" if counted["score"] >= counted["loss"] else "loss"


class Row:
    """The plain figures of one merge."""

    def __init__(self, results: Results, cell: Cell, *, of: Measured) -> None:
        setups = {about.task: results.setup(cell, about.task, of=of) for about in of.tasks}
        self.scores = {task: score(setup.merged) for task, setup in setups.items()}
        self.gain = {task: gain(setup) for task, setup in setups.items()}
        self.og = {task: outperformance(setup) for task, setup in setups.items()}
        self._tasks = of.tasks
        compared = [compare(setup.merged, setup.parents) for setup in setups.values()]
        self.answers: list[Answers] = [one for one in compared if one]

    @property
    def macro_gain(self) -> dict[str, float]:
        return _plain(over_tasks, self.gain, self._tasks)

    @property
    def macro_og(self) -> dict[str, float]:
        return _plain(over_tasks, self.og, self._tasks)

    @property
    def macro_gain_datasets(self) -> dict[str, float]:
        return _plain(over_datasets, self.gain, self._tasks)

    @property
    def macro_og_datasets(self) -> dict[str, float]:
        return _plain(over_datasets, self.og, self._tasks)

    @property
    def emerged(self) -> int | None:
        return sum(one.emerged for one in self.answers) if self.answers else None

    @property
    def lost(self) -> int | None:
        return sum(one.lost for one in self.answers) if self.answers else None

    @property
    def items(self) -> int | None:
        return sum(one.items for one in self.answers) if self.answers else None


_Mean = Callable[[Mapping[str, Floats], Sequence[About]], dict[str, Floats]]


def _plain(mean: _Mean, values: Mapping[str, float], tasks: Sequence[About]) -> dict[str, float]:
    found = mean({task: point(value) for task, value in values.items()}, tasks)
    return {kind: float(samples[0]) for kind, samples in found.items()}
