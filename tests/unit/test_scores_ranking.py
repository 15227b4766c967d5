"""Percentile ranks and the weighted score."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from worker.scores import Row, blank_row, parts, rank
from worker.scores.ranking import percentiles

numbers = st.one_of(st.floats(min_value=0, max_value=1e6), st.just(math.inf), st.sampled_from([0.0, 1.0, 2.0]))


def row(name: str, **scores: Any) -> Row:
    plain = {"snr": 1.0, "swci": 0.1, "svdr": 0.1, "relative_change": 0.01, "infinite": []}
    return Row(**{**blank_row(parts(name, shape=(4, 8), config={})[0], itemsize=2), **plain, **scores})  # type: ignore[typeddict-item]


@given(st.lists(numbers, min_size=2, max_size=30))
def test_percentiles_are_mean_ranks(values: list[float]) -> None:
    expected = (rankdata(values, method="average") - 1) / (len(values) - 1)
    assert percentiles(values) == pytest.approx(expected.tolist())


@given(st.lists(numbers, max_size=30), st.randoms())
def test_percentiles_belong_to_the_value_not_to_its_place(values: list[float], random: Any) -> None:
    order = list(range(len(values)))
    random.shuffle(order)
    shuffled = percentiles([values[i] for i in order])
    assert [percentiles(values)[i] for i in order] == shuffled
    assert all(0 <= p <= 1 for p in shuffled)


def test_a_value_alone_ranks_first() -> None:
    assert percentiles([0.3]) == [1.0]
    assert percentiles([]) == []


def test_ranks_are_taken_within_a_module_type_or_over_all() -> None:
    rows = [
        row("layers.0.q_proj.weight", swci=1.0), row("layers.1.q_proj.weight", swci=2.0),
        row("layers.0.v_proj.weight", swci=10.0), row("layers.1.v_proj.weight", swci=20.0),
        row("embed_tokens.weight", swci=0.5),
    ]  # fmt: skip
    within = {r["name"]: r["score"] for r in rank(rows, weights={"swci": 1})}
    assert within == {
        "layers.0.q_proj.weight": 0, "layers.1.q_proj.weight": 1, "layers.0.v_proj.weight": 0,
        "layers.1.v_proj.weight": 1, "embed_tokens.weight": 1,
    }  # fmt: skip
    over = [r["score"] for r in rank(rows, weights={"swci": 1}, ranking="global")]
    assert over == pytest.approx([0, 1 / 3, 2 / 3, 1, 1])


def test_weights_are_normalised_and_infinite_scores_rank_first() -> None:
    rows = [
        row("layers.0.q_proj.weight", snr=None, swci=None, svdr=0.1, infinite=["snr", "swci"]),
        row("layers.1.q_proj.weight", swci=5.0, svdr=0.2), row("layers.2.q_proj.weight", swci=1.0, svdr=0.3),
    ]  # fmt: skip
    scores = [r["score"] for r in rank(rows, weights={"swci": 3.0, "svdr": 1.0, "snr": 0.0})]
    assert scores == pytest.approx([0.75, 0.5 * 0.75 + 0.5 * 0.25, 0.25])


def test_an_unchanged_tensor_scores_zero_and_does_not_stand_in_the_ranking() -> None:
    rows = [
        row("layers.0.q_proj.weight", swci=0.0, svdr=0.0, relative_change=9e-8),
        row("layers.1.q_proj.weight", swci=0.1, svdr=0.1), row("layers.2.q_proj.weight", swci=0.2, svdr=0.2),
    ]  # fmt: skip
    assert [r["score"] for r in rank(rows, weights={"swci": 1.0, "svdr": 1.0})] == [0, 0, 1]


@given(st.permutations(range(6)))
def test_the_order_of_the_rows_changes_nothing(order: list[int]) -> None:
    rows = [row(f"layers.{i}.q_proj.weight", swci=float(i % 3), svdr=float(i % 2)) for i in range(6)]
    plain = {r["name"]: r["score"] for r in rank(rows, weights={"swci": 1.0, "svdr": 1.0})}
    assert {r["name"]: r["score"] for r in rank([rows[i] for i in order], weights={"swci": 1.0, "svdr": 1.0})} == plain
