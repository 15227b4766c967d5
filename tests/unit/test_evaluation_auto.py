"""The search for strengths, on pairs whose trade-off is known: better where it can be, never worse than uniform."""

import numpy as np
import pytest

from worker.evaluation.auto import Auto
from worker.evaluation.search import Objective
from worker.evaluation.sheets import Sheet
from worker.evaluation.sides import Part, Sides
from worker.evaluation.trials import Trial, Trials

NAMES = ("model.embed_tokens.weight", *(f"model.layers.{i}.mlp.{part}_proj.weight" for i in range(4)
                                        for part in ("gate", "up", "down")), "model.norm.weight")  # fmt: skip
ITEMS = {"search": 40, "check": 20}


class Surface:
    """A pair whose losses are quadratics in the strengths, and texts that see them through noise of their own."""

    names = NAMES

    def __init__(self, *, sloped=True, noise=0.0, alike=False, items=ITEMS):
        random = np.random.default_rng(5)
        size = len(NAMES)
        self.sloped, self.items = sloped, items
        even = np.full(size, 1 / size)
        self._weights = {
            role: even if alike else random.dirichlet(np.full(size, 0.7)) for role in ("general", "domain")
        }
        self._tilt = {
            (stretch, role): noise * random.normal(size=(count, size)) for stretch, count in items.items()
            for role in ("general", "domain")
        }
        self.asked = 0

    def share(self, stretch):
        return self.items[stretch] / sum(self.items.values())

    def measure(self, strengths, stretch, *, slopes):
        self.asked += 1
        t = np.array([strengths.get(name, 1.0) for name in NAMES])
        sheets, found = {}, {}
        for role, weights in self._weights.items():
            tilt = self._tilt[stretch, role]
            sign = 1.0 if role == "general" else -1.0
            way = t**2 if role == "general" else 2 * t - t**2
            pace = 2 * t if role == "general" else 2 - 2 * t
            values = 5 + sign * (weights @ way + tilt @ t)
            sheets[role] = sheet(role, values)
            found[role] = sign * (weights * pace + tilt.mean(0))
        return Trial(sheets=sheets, slopes=found if slopes else None)

    def sides(self, stretch):
        base, adapted = (self.measure(dict.fromkeys(NAMES, t), stretch, slopes=False).sheets for t in (0.0, 1.0))
        return Sides(base=base, adapted=adapted, parts={"general": Part("general"), "domain": Part("domain")})


def sheet(role, values):
    return Sheet(task=role, kind="loss", metric="nll", items=tuple(f"{i}" for i in range(len(values))),
                 values=tuple(values.tolist()), weights=(1.0,) * len(values))  # fmt: skip


def searched(surface, *, objectives, budget=60, **settings):
    trials = Trials(surface)
    auto = Auto(trials, {each: surface.sides(each) for each in ("search", "check")}, budget, **settings)
    return auto.run(objectives), trials


def at(surface, strengths):
    return surface.sides("search").values(surface.measure(strengths, "search", slopes=False).sheets)


@pytest.mark.parametrize(
    ("sloped", "gain", "budget", "least_won"),
    [(True, 0.8, 60, 0.15), (True, 0.95, 60, 0.25), (True, 0.97, 20, 0.25), (False, 0.9, 30, 0.02)],
)
def test_it_beats_the_uniform_curve_at_equal_gain_within_its_budget(sloped, gain, budget, least_won):
    surface = Surface(sloped=sloped)
    outcome, trials = searched(surface, objectives=[Objective("retention", gain)], budget=budget)
    choice = outcome.choices[0]
    assert outcome.method == ("gradient" if sloped else "groups")
    assert trials.spent <= budget
    assert choice.searched
    retention, kept = at(surface, choice.strengths)
    assert kept >= gain - 1e-6
    assert retention > at(surface, dict.fromkeys(NAMES, choice.uniform))[0] + least_won


def test_a_frontier_is_found_within_one_budget():
    surface = Surface()
    wanted = [Objective("retention", least) for least in (0.97, 0.9, 0.8)]
    outcome, trials = searched(surface, objectives=wanted)
    assert trials.spent <= 60
    assert [choice.objective.least for choice in outcome.choices] == [0.97, 0.9, 0.8]
    retained = [choice.values[0] for choice in outcome.choices]
    assert retained == sorted(retained)


@pytest.mark.parametrize("budget", [12, 14, 19, 25, 30, 60])
def test_a_frontier_stays_within_any_budget(budget):
    surface = Surface()
    wanted = [Objective("retention", least) for least in (0.97, 0.95, 0.9, 0.8)]
    outcome, trials = searched(surface, objectives=wanted, budget=budget, most=1.4)
    assert trials.spent <= budget
    for choice in outcome.choices:
        level = at(surface, dict.fromkeys(NAMES, choice.uniform))[0]
        assert choice.values[0] >= level - 0.01


def test_most_gain_for_a_retention():
    surface = Surface()
    outcome, _ = searched(surface, objectives=[Objective("gain", 0.6)])
    retention, gain = at(surface, outcome.choices[0].strengths)
    assert retention >= 0.6 - 1e-6
    assert gain > at(surface, dict.fromkeys(NAMES, outcome.choices[0].uniform))[1] + 0.05


@pytest.mark.parametrize("seed", range(3))
def test_where_texts_are_few_and_noisy_the_uniform_point_is_kept(seed):
    surface = Surface(noise=0.12, alike=True, items={"search": 6 + seed, "check": 4})
    outcome, _ = searched(surface, objectives=[Objective("retention", 0.9)])
    choice = outcome.choices[0]
    assert not choice.searched
    assert set(choice.strengths.values()) == {choice.uniform}


def test_nothing_that_is_known_is_measured_again(tmp_path):
    objectives = [Objective("retention", 0.9)]
    surface = Surface()
    first, trials = _journalled(surface, tmp_path, objectives)
    again = Surface()
    asked = 4  # the ends of both stretches, which are no trials
    second, other = _journalled(again, tmp_path, objectives)
    assert again.asked == asked < surface.asked
    assert second == first
    assert other.spent == trials.spent


@pytest.mark.parametrize("sloped", [True, False])
def test_what_is_measured_beside_each_other_is_chosen_billed_and_kept_as_one_after_the_other(tmp_path, sloped):
    many = []

    def ahead(surface):
        def measured(asks):
            many.append(len(asks))
            return (surface.measure(ask.strengths, ask.stretch, slopes=ask.slopes) for ask in asks)

        return measured

    starts = [dict.fromkeys(NAMES, 1.0) | {NAMES[0]: 0.3}, dict.fromkeys(NAMES, 0.62)]
    found = []
    for name, beside in (("one", None), ("many", ahead)):
        surface = Surface(sloped=sloped)
        trials = Trials(surface, journal=tmp_path / name, ahead=beside and beside(surface))
        auto = Auto(trials, {each: surface.sides(each) for each in ("search", "check")}, 40)
        wanted = [Objective("retention", least) for least in (0.95, 0.9)]
        found.append((auto.run(wanted, starts=starts), trials.spent, surface.asked, (tmp_path / name).read_bytes()))
    assert found[0] == found[1]
    assert sum(many) >= 12
    assert max(many) >= 10  # the curve, on both stretches


def _journalled(surface, tmp_path, objectives):
    trials = Trials(surface, journal=tmp_path / "journal")
    auto = Auto(trials, {each: surface.sides(each) for each in ("search", "check")}, 30)
    return auto.run(objectives), trials
