"""`policy: auto`: the strengths that keep most of one side for what is asked of the other, found on calibration texts.

It draws the uniform curve first, which is also the control that it has to beat. Then it climbs: by slopes, one strength
for every weight, where all calibration tasks are losses (`ascent`), else by groups of weights (`search`). The choice is
checked on a stretch of the calibration set that the search has not seen: where it is not better than the uniform curve
at the same other side beyond the noise, the uniform point is taken. So a small or noisy calibration set does no harm.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from worker.evaluation.ascent import Look, Map
from worker.evaluation.bootstrap import Floats
from worker.evaluation.candidates import Strengths
from worker.evaluation.groups import Groups, finest, grouped, split, spread
from worker.evaluation.search import Objective, Point, Search
from worker.evaluation.sides import GAIN, RETENTION, Sides
from worker.evaluation.trials import Ask, Stretch, Trial, Trials

UNIFORM = (0.85, 0.7, 0.55, 0.4, 0.25)
FRONTIER = (0.97, 0.95, 0.9, 0.8)
"""shares of the gain that a frontier is drawn for"""
LEAST_STEP = 0.0003  # of the objective: two steps that gain less end a climb
CONFIDENCE = 0.95  # one-sided, of being better than the uniform curve
_MIDDLE = 0.88
_LEAST_BEND = 0.1
_MARGIN = 0.001  # more than is asked is aimed at, so that what is found is not short of it by a hair
_REACH, _LEAST_REACH = 0.3, 0.05  # of a step, in every strength
_LEAST_PRICE, _LEAST_STRIDE = 2.0, 1e-3
_COARSE = 0.6  # share of a group search's budget before groups are split
Method = Literal["gradient", "groups"]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What was chosen for one objective."""

    objective: Objective
    strengths: Strengths
    """by the name of a weight"""
    uniform: float
    """the uniform strength that reaches what was asked"""
    searched: bool
    """whether the search's point was taken; else it is the uniform one"""
    advantage: tuple[float, float]
    """over the uniform curve at the same other side, on the stretch that was not searched: measured, lower bound"""
    values: tuple[float, float]
    """retention and gain on the stretch that was searched"""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """All choices, in the order of the objectives, and how they were come by."""

    choices: tuple[Choice, ...]
    method: Method
    spent: float
    curve: tuple[tuple[float, float, float], ...]
    """strength, retention, gain of the uniform points on the searched stretch, by rising strength"""


@dataclass
class Auto:
    """One search on one pair. `spent` never passes `budget`, in evaluations of the calibration set."""

    trials: Trials
    sides: Mapping[Stretch, Sides]
    budget: float
    method: Method | None = None
    most: float = 1.0
    """the largest strength: above 1 lies beyond the adapted model"""
    seed: int = 0
    told: Callable[[], None] = lambda: None
    _curve: dict[float, tuple[float, float]] = field(default_factory=dict)

    def run(self, objectives: Sequence[Objective], *, starts: Sequence[Strengths] = ()) -> Outcome:
        """The best strengths for each objective; `starts` are points worth a try, such as the score-selected set."""
        method = self.method or ("gradient" if self.trials.yardstick.sloped else "groups")
        self._draw_curve()
        climb = self._climb(starts) if method == "gradient" else self._grouped(starts)
        choices: dict[int, Choice] = {}
        for number, place in enumerate(_from_the_middle(objectives)):
            left = self.budget - self.trials.spent - self._reserve * (len(objectives) - number)
            found = climb(objectives[place], left / (len(objectives) - number))
            choices[place] = self._checked(objectives[place], found)
        curve = tuple((t, *self._curve[t]) for t in sorted(self._curve))
        ordered = tuple(choices[place] for place in range(len(objectives)))
        return Outcome(choices=ordered, method=method, spent=self.trials.spent, curve=curve)

    @property
    def _reserve(self) -> float:
        """What the check of one choice costs: its own, and that of the uniform point beside it."""
        return 2 * self.trials.cost("check")

    def _draw_curve(self) -> None:
        sides = self.sides["search"]
        self._curve = {0.0: sides.values(sides.base), 1.0: sides.values(sides.adapted)}
        self.trials.foresee([Ask(self._uniform(t), stretch) for t in UNIFORM for stretch in self.sides])
        for t in UNIFORM:
            strengths = self._uniform(t)
            self._curve[t] = sides.values(self._ask(strengths, "search").sheets)
            self._ask(strengths, "check")

    def _climb(self, starts: Sequence[Strengths]) -> Callable[[Objective, float], Strengths]:
        """By slopes. The map is kept from objective to objective."""
        units = finest(self.trials.yardstick.names)
        names = list(units)
        ground = Map(most=self.most, bends=self._bends())

        def climb(objective: Objective, budget: float) -> Strengths:
            end = self.trials.spent + budget
            for start in self._starts(objective, starts):
                if self.trials.spent + self.trials.cost("search", slopes=True) <= end:
                    ground.learn(self._look({unit: _mean(start, units[unit]) for unit in names}, units))
            ground.price, reach = self._price(objective), _REACH
            while self.trials.spent + self.trials.cost("search", slopes=True) <= end and reach > _LEAST_REACH:
                before = max(objective.merit(look.values, price=ground.price) for look in ground.looks)
                best = ground.best(maximise=objective.side, least=objective.least + _MARGIN, reach=reach)
                look = self._look(dict(zip(names, best.tolist(), strict=True)), units)
                ground.learn(look)
                if objective.merit(look.values, price=ground.price) < before + LEAST_STEP:
                    reach /= 2  # the map promised too much for so long a step, or there is no more to be had
            if not ground.looks:  # so small a budget
                return self._uniform(self._uniform_for(objective))
            chosen = max(ground.looks, key=lambda look: objective.strict(look.values))
            return spread(dict(zip(names, chosen.at.tolist(), strict=True)), units)

        return climb

    def _price(self, objective: Objective) -> float:
        """What the uniform curve gives of the side to maximise for the other, where that is as asked, and half more.

        Near the adapted model a point of gain is worth many of retention: at too low a price a point that is short of
        what is asked would pass for the best one, and the climb would go on from there.
        """
        ts = sorted(self._curve)
        place = int(np.clip(np.searchsorted(ts, self._uniform_for(objective)), 1, len(ts) - 1))
        one, other = self._curve[ts[place - 1]], self._curve[ts[place]]
        wanted, held = (abs(one[side] - other[side]) for side in (objective.side, 1 - objective.side))
        return max(_LEAST_PRICE, 1.5 * wanted / max(held, _LEAST_STRIDE))

    def _bends(self) -> tuple[float, float]:
        """Of both sides along the uniform curve, by a parabola through its points."""
        ts = sorted(self._curve)
        found = [-2 * float(np.polyfit(ts, [self._curve[t][side] for t in ts], 2)[0]) for side in (RETENTION, GAIN)]
        return max(found[0], _LEAST_BEND), max(found[1], _LEAST_BEND)

    def _starts(self, objective: Objective, starts: Sequence[Strengths]) -> list[Strengths]:
        """The uniform point that reaches what was asked, and of the others those that are better."""
        uniform = self._uniform(self._uniform_for(objective))
        level = self._on_curve(objective)
        self.trials.foresee([Ask(start, "search") for start in starts])
        values = [self.sides["search"].values(self._ask(start, "search").sheets) for start in starts]
        return [uniform, *(start for start, each in zip(starts, values, strict=True) if objective.merit(each) > level)]

    def _look(self, values: Mapping[str, float], units: Groups) -> Look:
        trial = self._ask(spread(values, units), "search", slopes=True)
        assert trial.slopes is not None
        order = {name: i for i, name in enumerate(self.trials.yardstick.names)}
        gather = np.zeros((len(units), len(order)))
        for row, members in enumerate(units.values()):
            gather[row, [order[name] for name in members]] = 1
        sides = self.sides["search"]
        retention, gain = sides.slopes(trial.sheets, trial.slopes)
        return Look(np.array(list(values.values())), sides.values(trial.sheets), (gather @ retention, gather @ gain))

    def _grouped(self, starts: Sequence[Strengths]) -> Callable[[Objective, float], Strengths]:
        """By groups of weights, split where it pays. Points are kept from objective to objective."""
        coarse = grouped(self.trials.yardstick.names)
        known: list[tuple[Strengths, Point]] = []

        def evaluate(groups: Groups) -> Callable[[Mapping[str, float], str], Point]:
            def asked(values: Mapping[str, float], origin: str) -> Point:
                strengths = spread(values, groups)
                retention, gain = self.sides["search"].values(self._ask(strengths, "search").sheets)
                point = Point(dict(values), retention, gain, origin)
                known.append((strengths, point))
                return point

            return asked

        def ahead(groups: Groups) -> Callable[[Sequence[Mapping[str, float]]], None]:
            return lambda many: self.trials.foresee([Ask(spread(values, groups), "search") for values in many])

        def climb(objective: Objective, budget: float) -> Strengths:
            left, groups = int(budget / self.trials.cost("search")), coarse
            for count in (round(_COARSE * left), left - round(_COARSE * left)):
                search = Search(evaluate(groups), list(groups), budget=count, seed=self.seed, most=self.most,
                                ahead=ahead(groups))  # fmt: skip
                search.points = _within(known, groups)
                tried = [{group: _mean(start, members) for group, members in groups.items()} for start in starts]
                best = search.run(objective, starts=tried)
                groups = split(groups, by=_restless(best.strengths, groups))
            return max(known, key=lambda one: objective.value(one[1]))[0]

        for t, (retention, gain) in self._curve.items():
            known.append((self._uniform(t), Point({}, retention, gain, "uniform")))
        return climb

    def _checked(self, objective: Objective, found: Strengths) -> Choice:
        """The found point if it beats the uniform curve on the stretch that was not searched, else the uniform one."""
        t = self._uniform_for(objective)
        measured, low = self._advantage(objective, found, near=t)
        better = low > 0 and found != self._uniform(t)
        strengths = found if better else self._uniform(t)
        values = self.sides["search"].values(self._ask(found, "search").sheets) if better else self._at(t)
        return Choice(
            objective=objective, strengths=strengths, uniform=t, searched=better, advantage=(measured, low),
            values=values,
        )

    def _advantage(self, objective: Objective, found: Strengths, *, near: float) -> tuple[float, float]:
        """`near` is a point of the uniform curve close by: straight lines between far ones lie below it."""
        sides = self.sides["check"]
        if not sides.defined(RETENTION) or not sides.defined(GAIN):
            return 0.0, 0.0  # so few items that nothing was forgotten or gained in them: they cannot vouch for anything
        ts = sorted({*UNIFORM, near})
        self.trials.foresee([Ask(self._uniform(near), "check"), Ask(found, "check")])
        points = [sides.base, *(self._ask(self._uniform(t), "check").sheets for t in ts), sides.adapted]
        samples = sides.samples([*points, self._ask(found, "check").sheets])
        wanted, held = samples[:, objective.side], samples[:, 1 - objective.side]
        above = wanted[-1] - _along(held[:-1], wanted[:-1], held[-1])
        return float(above[0]), float(np.quantile(above[1:], 1 - CONFIDENCE))

    def _uniform_for(self, objective: Objective) -> float:
        """The uniform strength at which the constrained side is as asked, by the curve."""
        ts = sorted(self._curve)
        held = [self._curve[t][1 - objective.side] for t in ts]
        rising = objective.side == RETENTION  # gain rises with t, retention falls
        order = ts if rising else ts[::-1]
        level = np.maximum.accumulate(held if rising else held[::-1])
        return round(float(np.interp(objective.least, level, order)), 4)

    def _on_curve(self, objective: Objective) -> float:
        return objective.merit(self._at(self._uniform_for(objective)))

    def _at(self, t: float) -> tuple[float, float]:
        ts = sorted(self._curve)
        each = [[self._curve[one][side] for one in ts] for side in (RETENTION, GAIN)]
        return float(np.interp(t, ts, each[0])), float(np.interp(t, ts, each[1]))

    def _uniform(self, t: float) -> Strengths:
        return dict.fromkeys(self.trials.yardstick.names, t)

    def _ask(self, strengths: Strengths, stretch: Stretch, *, slopes: bool = False) -> Trial:
        trial = self.trials.ask(strengths, stretch, slopes=slopes)
        self.told()
        return trial


def _from_the_middle(objectives: Sequence[Objective]) -> list[int]:
    """Places in the order of the climbs: where most can be won first, since the others learn from it."""
    return sorted(range(len(objectives)), key=lambda place: abs(objectives[place].least - _MIDDLE))


def _mean(strengths: Strengths, names: Sequence[str]) -> float:
    return float(np.mean([strengths.get(name, 1.0) for name in names]))


def _within(known: Sequence[tuple[Strengths, Point]], groups: Groups) -> list[Point]:
    """The measured points in terms of these groups, where each of them has one strength."""
    found = []
    for strengths, point in known:
        values = {group: {strengths.get(name, 1.0) for name in members} for group, members in groups.items()}
        if all(len(each) == 1 for each in values.values()):
            own = {group: round(next(iter(each)), 3) for group, each in values.items()}
            found.append(Point(own, point.retention, point.gain, point.origin))
    return found


def _restless(values: Mapping[str, float], groups: Groups) -> tuple[str, ...]:
    """The two groups that the search moved furthest from the others and that can be split."""
    middle = float(np.median(list(values.values())))
    able = [group for group, members in groups.items() if len(members) > 1]
    return tuple(sorted(able, key=lambda group: -abs(values[group] - middle))[:2])


def _along(held: Floats, wanted: Floats, at: Floats) -> Floats:
    """The uniform curve's wanted side where its held side is `at`, draw by draw; held, wanted: points x draws."""
    found = np.empty_like(at)
    for draw in range(len(at)):
        order = np.argsort(held[:, draw])
        found[draw] = np.interp(at[draw], held[order, draw], wanted[order, draw])
    return found

