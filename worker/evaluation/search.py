"""The search for the best trade-off: which strengths, by group, keep most of one side for what is asked of the other.

Retention and gain kept are smooth in the strengths and measured without noise on the calibration set, but each point
costs an evaluation. So the search is model-based: two Gaussian processes (one for either side, over the strengths of
the groups) are fitted to the points so far, and the next point is where they promise the best objective. It starts
from the uniform curve, which is also the control that it has to beat.

Source: Gardner et al., "Bayesian Optimization with Inequality Constraints", ICML 2014; Rasmussen & Williams, Gaussian
Processes for Machine Learning (2006), chapter 2.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from worker.evaluation.ascent import merit

Floats = NDArray[np.float64]
UNIFORM = (0.85, 0.7, 0.55, 0.4, 0.25)
_PROPOSALS = 3000
_CAUTION = 0.5  # standard deviations by which a promise is believed less where the constraint is concerned


@dataclass(frozen=True)
class Point:
    """What one set of strengths measured on the calibration set; shares, 1 is all."""

    strengths: Mapping[str, float]
    retention: float
    gain: float
    origin: str


@dataclass(frozen=True)
class Objective:
    """Most of one side while the other stays at or above `least`."""

    maximise: Literal["retention", "gain"] = "retention"
    least: float = 0.9

    def sides(self, point: Point) -> tuple[float, float]:
        """What is maximised, and what is constrained."""
        pair = (point.retention, point.gain)
        return pair if self.maximise == "retention" else pair[::-1]

    @property
    def side(self) -> int:
        """The side to maximise: 0 is retention, 1 gain."""
        return 0 if self.maximise == "retention" else 1

    def merit(self, values: Sequence[float], *, price: float = 2.0) -> float:
        """Of retention and gain; what is short of the asked level counts by its price."""
        return merit(values, maximise=self.side, least=self.least, price=price)

    def strict(self, values: Sequence[float]) -> float:
        """Larger is better: first to hold the constraint, then the side to maximise."""
        wanted, held = values[self.side], values[1 - self.side]
        return wanted if held >= self.least else -1e3 * (self.least - held) - 1e3

    def value(self, point: Point) -> float:
        """The same of a point."""
        return self.strict((point.retention, point.gain))


@dataclass
class Search:
    """Asks `evaluate` at most `budget` times; every answer is kept in `points`, which may hold some before."""

    evaluate: Callable[[Mapping[str, float], str], Point]
    groups: Sequence[str]
    budget: int
    seed: int = 0
    most: float = 1.0
    """the largest strength"""
    ahead: Callable[[Sequence[Mapping[str, float]]], None] = lambda _: None
    """hears which points are going to be asked for one after the other, whatever the first of them come to"""
    points: list[Point] = field(default_factory=list)
    asked: int = field(default=0, init=False)

    def run(self, objective: Objective, *, starts: Sequence[Mapping[str, float]] = ()) -> Point:
        """The best point found. `starts` are tried after the uniform curve."""
        curve = [(dict.fromkeys(self.groups, t), "uniform") for t in UNIFORM]
        self._try_all([*curve, *((start, "start") for start in starts)])
        best = max(self.points, key=objective.value)
        self._try_all([({**best.strengths, group: _moved(best.strengths[group])}, "probe") for group in self.groups])
        before = -1
        while before < self.asked < self.budget:  # a proposal that is known already would be made for ever
            before = self.asked
            self._try(self._proposal(objective), "model")
        return max(self.points, key=objective.value)

    def _try_all(self, many: Sequence[tuple[Mapping[str, float], str]]) -> None:
        """One after the other, as long as the budget lasts."""
        new: list[dict[str, float]] = []
        for strengths, _ in many:
            if self._is_new(self._rounded(strengths)) and self._rounded(strengths) not in new:
                new.append(self._rounded(strengths))
        self.ahead(new[: max(0, self.budget - self.asked)])
        for strengths, origin in many:
            self._try(strengths, origin)

    def _rounded(self, strengths: Mapping[str, float]) -> dict[str, float]:
        return {group: round(float(strengths[group]), 3) for group in self.groups}

    def _is_new(self, rounded: dict[str, float]) -> bool:
        return all(rounded != dict(point.strengths) for point in self.points)

    def _try(self, strengths: Mapping[str, float], origin: str) -> None:
        rounded = self._rounded(strengths)
        if self.asked < self.budget and self._is_new(rounded):
            self.asked += 1
            self.points.append(self.evaluate(rounded, origin))

    def _proposal(self, objective: Objective) -> dict[str, float]:
        known = np.array([[point.strengths[group] for group in self.groups] for point in self.points])
        sides = np.array([objective.sides(point) for point in self.points])
        random = np.random.default_rng([self.seed, len(self.points)])
        candidates = self._candidates(known, np.array([objective.value(point) for point in self.points]), random)
        wanted, held = (_fitted(known, sides[:, side], seed=self.seed) for side in (0, 1))
        gain, spread = wanted.predict(candidates, return_std=True)
        level, doubt = held.predict(candidates, return_std=True)
        short = np.maximum(0.0, objective.least + _CAUTION * doubt - level)
        far = np.min(np.abs(candidates[:, None] - known[None]).max(-1), axis=1)
        promise = gain + 0.3 * spread - 50.0 * short - (far < 0.004) * 10.0
        return dict(zip(self.groups, candidates[int(np.argmax(promise))].tolist(), strict=True))

    def _candidates(self, known: Floats, values: Floats, random: np.random.Generator) -> Floats:
        """Near the best points, at several distances; along the uniform line; anywhere."""
        best = known[np.argsort(-values)[:4]]
        count, width = _PROPOSALS, len(self.groups)
        near = best[random.integers(len(best), size=count)]
        step = random.normal(size=(count, width)) * random.choice([0.03, 0.08, 0.2], size=(count, 1))
        step *= random.random((count, width)) < random.choice([0.3, 1.0], size=(count, 1))
        anywhere = random.random((count // 4, width))
        found: Floats = np.clip(np.concatenate([near + step, anywhere]), 0.0, self.most)
        return found


def _moved(t: float) -> float:
    return t - 0.3 if t > 0.5 else t + 0.3


def _fitted(points: Floats, values: Floats, *, seed: int) -> GaussianProcessRegressor:
    """A Gaussian process with a length scale of its own for every group."""
    width = points.shape[1]
    smooth = ConstantKernel(1.0, (0.05, 50.0)) * RBF(np.full(width, 1.0), (0.15, 20.0))
    kernel = smooth + WhiteKernel(1e-5, (1e-8, 1e-2))
    model = GaussianProcessRegressor(kernel, normalize_y=True, n_restarts_optimizer=1, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a length scale at its bound: the group hardly matters
        model.fit(points, values)
    return model
