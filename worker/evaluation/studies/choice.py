"""Which settings of a method calibration chooses, and how much they matter."""

from collections.abc import Mapping, Sequence
from statistics import fmean, pstdev

from pydantic import BaseModel, ConfigDict

from app.recipes.study import Cell, Settings


class Spread(BaseModel):
    """One figure over cells that differ in their settings."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    cells: int
    best: float
    worst: float
    mean: float
    deviation: float
    """population standard deviation"""
    best_settings: dict[str, float | int]


class Seeds(BaseModel):
    """One figure over the seeds of the chosen settings."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    seeds: int
    mean: float
    deviation: float


def choose(cells: Sequence[Cell], merit: Mapping[str, float]) -> Cell:
    """Of cells of one place, the settings with the largest mean merit over seeds, at the first seed.

    Of equals, the first in the grid's order. `merit` is by the cells' keys.
    """
    groups = _by_settings(cells)
    best = max(groups.values(), key=lambda group: fmean(merit[cell.key] for cell in group))
    return best[0]


def spread(cells: Sequence[Cell], merit: Mapping[str, float]) -> Spread:
    """Over all settings, seeds among them."""
    values = [merit[cell.key] for cell in cells]
    best = max(cells, key=lambda cell: merit[cell.key])
    return Spread(
        cells=len(values), best=max(values), worst=min(values), mean=fmean(values), deviation=pstdev(values),
        best_settings=dict(best.settings),
    )  # fmt: skip


def seeds(cells: Sequence[Cell], chosen: Cell, merit: Mapping[str, float]) -> Seeds | None:
    """Over the seeds of the chosen settings; none where there is one alone."""
    group = _by_settings(cells)[chosen.unseeded]
    values = [merit[cell.key] for cell in group]
    return Seeds(seeds=len(values), mean=fmean(values), deviation=pstdev(values)) if len(values) > 1 else None


def places(cells: Sequence[Cell]) -> dict[tuple[int, tuple[int, ...], str], list[Cell]]:
    """The cells of each stage, set of experts and method."""
    found: dict[tuple[int, tuple[int, ...], str], list[Cell]] = {}
    for cell in cells:
        found.setdefault(cell.place, []).append(cell)
    return found


def _by_settings(cells: Sequence[Cell]) -> dict[Settings, list[Cell]]:
    found: dict[Settings, list[Cell]] = {}
    for cell in cells:
        found.setdefault(cell.unseeded, []).append(cell)
    return found
