"""The search, on surfaces whose best points are known."""

import numpy as np
import pytest

from worker.evaluation.groups import grouped, spread
from worker.evaluation.search import Objective, Point, Search

GROUPS = ("attention.1/2", "attention.2/2", "embedding", "mlp.1/2", "mlp.2/2", "norm")
FORGETS = np.array([0.05, 0.1, 0.45, 0.2, 0.15, 0.05])
GAINS = np.array([0.2, 0.3, 0.05, 0.1, 0.3, 0.05])


def surface(strengths, origin="asked"):
    """Each group forgets and gains a share of its own; two groups act on each other."""
    t = np.array([strengths[group] for group in GROUPS])
    lost = FORGETS @ t**2 + 0.05 * t[2] * t[3] * (1 - t[4])
    return Point(strengths, retention=float(1 - lost), gain=float(GAINS @ (2 * t - t**2)), origin=origin)


def uniform_retention(gain):
    curve = [surface(dict.fromkeys(GROUPS, t)) for t in np.linspace(0, 1, 401)]
    return float(np.interp(gain, [point.gain for point in curve], [point.retention for point in curve]))


@pytest.mark.parametrize("least", [0.8, 0.95])
def test_it_finds_more_retention_than_the_uniform_curve_at_the_gain_that_was_asked(least):
    search = Search(surface, GROUPS, budget=40)
    best = search.run(Objective("retention", least))
    assert best.gain >= least
    assert len(search.points) == 40
    assert best.retention > uniform_retention(best.gain) + 0.05


def test_the_other_way_round():
    best = Search(surface, GROUPS, budget=35).run(Objective("gain", 0.6))
    assert best.retention >= 0.6
    uniform = max(surface(dict.fromkeys(GROUPS, t)).gain for t in np.linspace(0, 1, 401)
                  if surface(dict.fromkeys(GROUPS, t)).retention >= 0.6)  # fmt: skip
    assert best.gain > uniform


def test_the_same_seed_searches_the_same_way():
    first, second = (Search(surface, GROUPS, budget=18, seed=4) for _ in range(2))
    first.run(Objective())
    second.run(Objective())
    assert first.points == second.points


def test_nothing_is_measured_twice_and_the_budget_holds():
    search = Search(surface, GROUPS, budget=9)
    search.run(Objective(), starts=[dict.fromkeys(GROUPS, 0.7), dict.fromkeys(GROUPS, 0.123)])
    asked = [tuple(point.strengths.values()) for point in search.points]
    assert len(asked) == len(set(asked)) == 9


def test_every_weight_stands_in_one_group():
    names = [f"model.layers.{layer}.{part}" for layer in range(4) for part in
             ("self_attn.q_proj.weight", "mlp.down_proj.weight", "input_layernorm.weight")]  # fmt: skip
    groups = grouped([*names, "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"])
    assert {name: len(members) for name, members in groups.items()} == {
        "attention.1/2": 2, "attention.2/2": 2, "embedding": 1, "head": 1, "mlp.1/2": 2, "mlp.2/2": 2, "norm": 5,
    }  # fmt: skip
    assert spread(dict.fromkeys(groups, 0.5), groups).keys() == {
        *names, "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"
    }  # fmt: skip
