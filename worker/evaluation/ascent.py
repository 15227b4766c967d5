"""Climbing by slopes: both sides as quadratics around measured points, and the best point that these promise.

Retention and gain are smooth in the strengths and nearly quadratic between two models of one descent. Where the slope
by every strength is known at a point, two quadratics are a good map of its surroundings: the next point to measure is
where they promise the most of one side while the other stays where it was asked to be, within a step that the map can
be trusted over. What is learned of the curvature stays, so a second objective on the same pair costs a few steps.

Source: Nocedal & Wright, Numerical Optimization (2006), chapter 18 (sequential quadratic programming); curvature by
Powell's symmetric Broyden updates, chapter 6.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

Floats = NDArray[np.float64]
_NOTHING = 1e-12
_LEAST_WEIGHT = 1e-3  # of the largest slope: strengths that hardly matter are not moved without bound for nothing


@dataclass(frozen=True)
class Look:
    """What was measured at a point: both sides (0 retention, 1 gain) and their slopes by each strength."""

    at: Floats
    values: tuple[float, float]
    slopes: tuple[Floats, Floats]


@dataclass
class Map:
    """The quadratics: the slopes of the nearest look, and one curvature matrix for each side, width x width."""

    most: float = 1.0
    """the largest strength"""
    bends: tuple[float, float] = (1.0, 1.0)
    """how much either side's slope falls along the uniform curve, where all strengths rise by 1"""
    price: float = 2.0
    """how much of one side makes up for what is missing of the other, at least"""
    looks: list[Look] = field(default_factory=list)
    _curvature: list[Floats] = field(default_factory=list)
    _scale: Floats = field(default_factory=lambda: np.empty(0))

    def learn(self, look: Look) -> None:
        """Add a look. The first one sets the scales, and curvatures to begin with, shared by slope."""
        if not self.looks:
            weight = np.abs(look.slopes[0]) + np.abs(look.slopes[1])
            self._scale = 1 / np.sqrt(np.maximum(weight, max(weight.max() * _LEAST_WEIGHT, _NOTHING)))
            shares = [np.abs(slope) / max(np.abs(slope).sum(), _NOTHING) for slope in look.slopes]
            self._curvature = [np.diag(-bend * share) for bend, share in zip(self.bends, shares, strict=True)]
        for before in self.looks[-3:]:
            self._update(before, look)
        self.looks.append(look)

    def best(self, *, maximise: int, least: float, reach: float) -> Floats:
        """The promised best within `reach` of the best look so far."""
        centre = max(self.looks, key=lambda look: merit(look.values, maximise=maximise, least=least, price=self.price))
        held = 1 - maximise
        scale = self._scale

        def side(number: int, scaled: Floats) -> float:
            step = scaled * scale - centre.at
            return float(centre.values[number] + centre.slopes[number] @ step
                         + step @ self._curvature[number] @ step / 2)  # fmt: skip

        def slope(number: int, scaled: Floats) -> Floats:
            step = scaled * scale - centre.at
            found: Floats = (centre.slopes[number] + self._curvature[number] @ step) * scale
            return found

        low, high = np.maximum(0, centre.at - reach), np.minimum(self.most, centre.at + reach)
        found = minimize(
            lambda x: -side(maximise, x), centre.at / scale, jac=lambda x: -slope(maximise, x), method="SLSQP",
            bounds=list(zip(low / scale, high / scale, strict=True)), options={"maxiter": 60},
            constraints=[{"type": "ineq", "fun": lambda x: side(held, x) - least, "jac": lambda x: slope(held, x)}],
        )
        best: Floats = np.clip(found.x * scale, low, high)
        return best

    def _update(self, before: Look, after: Look) -> None:
        """Both matrices to agree with how the slopes changed on the way (Powell's symmetric Broyden update, scaled)."""
        step = (after.at - before.at) / self._scale
        square = float(step @ step)
        if square < 1e-10:
            return
        outer = np.outer(self._scale, self._scale)
        for number, curvature in enumerate(self._curvature):
            scaled = curvature * outer
            change = (after.slopes[number] - before.slopes[number]) * self._scale
            missing = change - scaled @ step
            scaled += (np.outer(missing, step) + np.outer(step, missing)) / square
            scaled -= (step @ missing) * np.outer(step, step) / square**2
            self._curvature[number] = scaled / outer


def merit(values: Sequence[float], *, maximise: int, least: float, price: float = 2.0) -> float:
    """Larger is better; a little short of what is asked counts by what it would cost to make up for it."""
    return values[maximise] - price * max(0.0, least - values[1 - maximise])
