"""Retention, gain kept and their intervals, against figures worked out by hand and by scipy."""

import numpy as np
import pytest
from scipy import stats

from worker.evaluation.measures import Question, measure
from worker.evaluation.sheets import Sheet


def sheet(values, *, task="t", kind="score", weights=None):
    names = tuple(f"item{i}" for i in range(len(values)))
    weights = tuple(weights) if weights is not None else (1.0,) * len(values)
    metric = "acc" if kind == "score" else "nll"
    return Sheet(task=task, kind=kind, metric=metric, items=names, values=tuple(values), weights=weights)


def question(base, adapted, merged, *, role="general", kind="score", task="t", **more):
    parts = (sheet(values, task=task, kind=kind) for values in (base, adapted, merged))
    one, two, three = parts
    return Question(role=role, base=one, adapted={"org/a": two}, merged=three, **more)


def test_retention_of_a_score_is_merged_over_base() -> None:
    found = measure([question([1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 0, 0])], seed=0)
    assert found.tasks[0].share.value == pytest.approx(2 / 3)
    assert found.tasks[0].adapted_share.value == pytest.approx(1 / 3)
    assert found.retention is not None
    assert found.retention.mean.value == pytest.approx(2 / 3)


def test_retention_of_a_loss_is_the_share_of_the_increase_that_is_undone() -> None:
    found = measure([question([4.0, 4.0], [5.0, 6.0], [4.5, 4.5], kind="loss")], seed=0)
    assert found.tasks[0].share.value == pytest.approx((5.5 - 4.5) / (5.5 - 4.0))


def test_the_gain_that_is_kept() -> None:
    score = question([0, 0, 0, 1], [1, 1, 1, 1], [1, 1, 0, 1], role="domain")
    loss = question([3.0, 3.0], [1.0, 1.0], [1.5, 1.5], role="domain", kind="loss", task="u")
    found = measure([score, loss], seed=0)
    assert [task.share.value for task in found.tasks] == pytest.approx([2 / 3, 0.75])
    assert found.gain_kept is not None
    assert found.gain_kept.mean.value == pytest.approx((2 / 3 + 0.75) / 2)
    assert found.gain_kept.pooled.value is None  # nats and right answers do not add up


def test_without_forgetting_there_is_nothing_to_undo() -> None:
    found = measure([question([4.0], [3.9], [3.9], kind="loss")], seed=0)
    assert found.tasks[0].share.value is None
    assert found.retention is not None
    assert found.retention.mean.value is None


def test_flips_count_items_against_both_parents() -> None:
    found = measure([question([1, 1, 0, 0], [0, 1, 1, 0], [1, 0, 1, 1])], seed=0)
    from_base, from_adapted = found.tasks[0].flips_from_base, found.tasks[0].flips_from_adapted
    assert from_base is not None
    assert from_adapted is not None
    assert (from_base.lost, from_base.won) == (1, 2)
    assert (from_adapted.lost, from_adapted.won) == (1, 2)


def test_the_interval_is_that_of_the_paired_bootstrap() -> None:
    random = np.random.default_rng(7)
    base = random.normal(4, 0.5, 200)
    adapted, merged = base + random.normal(1.0, 0.3, 200), base + random.normal(0.4, 0.3, 200)
    found = measure([question(base.tolist(), adapted.tolist(), merged.tolist(), kind="loss")], seed=3).tasks[0].share

    def undone(b, a, m, axis=-1):
        return (a.mean(axis) - m.mean(axis)) / (a.mean(axis) - b.mean(axis))

    expected = stats.bootstrap(
        (base, adapted, merged), undone, paired=True, vectorized=True, n_resamples=4000, method="percentile", rng=11
    ).confidence_interval
    assert found.low == pytest.approx(expected.low, abs=0.012)
    assert found.high == pytest.approx(expected.high, abs=0.012)


def test_the_same_seed_gives_the_same_interval_and_another_does_not() -> None:
    asked = [question([1, 0] * 30, [0, 0, 1] * 20, [1, 1, 0] * 20)]
    assert measure(asked, seed=1) == measure(asked, seed=1)
    assert measure(asked, seed=1) != measure(asked, seed=2)


def test_means_by_ability_and_by_weight() -> None:
    asked = [
        question([1, 1], [0, 0], [1, 0], task="a", ability="code", weight=3),
        question([1, 1], [0, 0], [1, 1], task="b", ability="prose", weight=1),
    ]
    found = measure(asked, seed=0)
    assert found.retention is not None
    assert found.retention.mean.value == pytest.approx((3 * 0.5 + 1.0) / 4)
    assert {name: one.value for name, one in found.abilities.items()} == pytest.approx({"code": 0.5, "prose": 1.0})


def test_of_several_experts_the_best_in_its_domain_is_what_gain_is_measured_by() -> None:
    asked = Question(
        role="domain", base=sheet([0, 0]), adapted={"org/a": sheet([1, 0]), "org/b": sheet([1, 1])},
        merged=sheet([1, 0]),
    )
    found = measure([asked], seed=0).tasks[0]
    assert found.adapted_repo == "org/b"
    assert found.share.value == pytest.approx(0.5)


def test_sheets_of_different_items_are_never_compared() -> None:
    other = Sheet(task="t", kind="score", metric="acc", items=("x", "y"), values=(1, 0), weights=(1, 1))
    with pytest.raises(ValueError, match="different items"):
        measure([Question(role="general", base=sheet([1, 0]), adapted={"a": sheet([1, 0])}, merged=other)], seed=0)
