"""What is restored: shares, budgets, patterns, blocks."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.scores import Row, Selection, blank_row, choose, parts
from worker.scores.selection import Rules

TYPES = ("q", "v", "up")


def blank(name: str, *, shape: tuple[int, ...]) -> Row:
    return blank_row(parts(name, shape=shape, config={})[0], itemsize=2)


def row(name: str, *, score: float = 0.5, change: float = 0.01, size: int = 32) -> Row:
    return Row(**{**blank(name, shape=(size // 4, 4)), "score": score, "relative_change": change})  # type: ignore[typeddict-item]


def model(scores: dict[str, list[float]], *, size: int = 32) -> list[Row]:
    return [
        row(f"model.layers.{layer}.{kind}_proj.weight", score=score, size=size)
        for kind, values in scores.items()
        for layer, score in enumerate(values)
    ]


def chosen(selection: Selection) -> set[str]:
    return {r["name"] for r in selection.rows if r["selected"]}


scores = st.dictionaries(
    st.sampled_from(TYPES), st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), min_size=1, max_size=12), min_size=1
)
shares = st.floats(min_value=0.01, max_value=1)


@given(scores, shares)
def test_each_group_gives_its_best_share_rounded_up(values: dict[str, list[float]], share: float) -> None:
    rows = model(values)
    picked = chosen(choose(rows, rules=Rules(share=share)))
    for kind, group in values.items():
        members = [r for r in rows if r["module_type"] == kind]
        taken = [r for r in members if r["name"] in picked]
        left = [r for r in members if r["name"] not in picked]
        assert len(taken) == math.ceil(share * len(group) - 1e-9)
        best = sorted(members, key=lambda r: (-(r["score"] or 0), r["name"]))
        assert sorted(r["name"] for r in taken) == sorted(r["name"] for r in best[: len(taken)])
        assert not left or not taken or min(r["score"] or 0 for r in taken) >= max(r["score"] or 0 for r in left)


@given(scores, shares, st.randoms())
def test_the_order_of_the_rows_does_not_matter(values: dict[str, list[float]], share: float, random: Any) -> None:
    rows = model(values)
    shuffled = random.sample(rows, len(rows))
    for rules in (Rules(share=share), Rules(unit="block", share=share), Rules(budget_parameters=100)):
        assert choose(rows, rules=rules).decisions == choose(shuffled, rules=rules).decisions


@given(scores, shares, shares)
def test_a_larger_share_never_drops_anything(values: dict[str, list[float]], one: float, two: float) -> None:
    rows = model(values)
    less, more = (chosen(choose(rows, rules=Rules(share=s))) for s in sorted((one, two)))
    assert less <= more


@given(scores, st.integers(1, 2000), st.integers(1, 2000))
def test_a_budget_is_kept_and_a_larger_one_never_drops_anything(
    values: dict[str, list[float]], one: int, two: int
) -> None:
    rows = [Row(**{**r, "nbytes": 10 + 7 * i}) for i, r in enumerate(model(values))]  # type: ignore[typeddict-item]
    less, more = (choose(rows, rules=Rules(budget_bytes=b)) for b in sorted((one, two)))
    assert less.shares["bytes"] <= min(one, two)
    assert chosen(less) <= chosen(more)


@pytest.mark.parametrize(("share", "count"), [(0.07, 7), (0.1, 10), (0.001, 1), (0.29, 29), (1.0, 100)])
def test_a_share_of_one_hundred_is_not_disturbed_by_binary_fractions(share: float, count: int) -> None:
    rows = model({"q": [i / 100 for i in range(100)]})
    assert len(choose(rows, rules=Rules(share=share)).decisions) == count


def test_a_parameter_budget_takes_the_best_over_all_groups() -> None:
    rows = model({"q": [0.9, 0.1], "v": [0.8, 0.2]})
    picked = chosen(choose(rows, rules=Rules(budget_parameters=64)))
    assert picked == {"model.layers.0.q_proj.weight", "model.layers.0.v_proj.weight"}


def test_ties_go_to_the_first_name() -> None:
    rows = model({"q": [0.5, 0.5, 0.5, 0.5]})
    assert chosen(choose(rows, rules=Rules(share=0.5))) == {
        "model.layers.0.q_proj.weight", "model.layers.1.q_proj.weight",
    }  # fmt: skip


def test_identical_tensors_are_never_restored() -> None:
    rows = [row(f"model.layers.{i}.q_proj.weight", score=0.0, change=0.0) for i in range(4)]
    for rules in (Rules(share=1.0), Rules(budget_bytes=10**9), Rules(share=1.0, unit="block"), Rules(include=("*",))):
        outcome = choose(rows, rules=rules)
        assert outcome.decisions == {}
        assert {(r["selected"], r["t"], r["reason"]) for r in outcome.rows} == {(False, 1.0, "unchanged")}
        assert any("identical" in warning for warning in outcome.warnings)


def test_a_pattern_moves_a_tensor_that_hardly_changed_and_leaves_an_identical_one() -> None:
    rows = [row(f"model.layers.{i}.q_proj.weight", score=0.0, change=(0.0, 1e-9)[i]) for i in range(2)]
    for rules in (Rules(sets=((("*",), 0.0),)), Rules(include=("*",), t=0.0)):
        assert choose(rows, rules=rules).decisions == {"model.layers.1.q_proj.weight": 0.0}
    assert choose(rows, rules=Rules(share=1)).decisions == {}


def test_patterns_include_and_exclude_before_the_ranking_counts() -> None:
    rows = model({"q": [0.9, 0.8, 0.1, 0.0]})
    norm = blank("model.norm.weight", shape=(4,))
    rules = Rules(share=0.5, include=("*.3.*", "model.norm.*", "*.0.*"), exclude=("*.0.*",), t=0.25)
    outcome = choose(rows, others=[norm], rules=rules)
    reasons = {r["name"]: r["reason"] for r in outcome.rows}
    assert reasons == {
        "model.layers.0.q_proj.weight": "excluded", "model.layers.1.q_proj.weight": "ranked",
        "model.layers.2.q_proj.weight": "below the cut", "model.layers.3.q_proj.weight": "included",
        "model.norm.weight": "included",
    }  # fmt: skip
    assert set(outcome.decisions) == {n for n, reason in reasons.items() if reason in {"ranked", "included"}}
    assert set(outcome.decisions.values()) == {0.25}


def test_a_pattern_that_matches_nothing_is_told() -> None:
    outcome = choose(model({"q": [0.5]}), rules=Rules(exclude=("*.k_proj.*",)))
    assert outcome.warnings == ["method.exclude: the pattern '*.k_proj.*' matches no tensor"]


def test_blocks_are_restored_whole_by_their_mean_weighted_by_parameters() -> None:
    rows = [
        *model({"q": [1.0, 0.0, 0.0], "v": [1.0, 0.0, 0.0]}, size=8), *model({"up": [0.0, 0.6, 0.1]}, size=80),
        row("model.embed_tokens.weight", score=1.0),
    ]  # fmt: skip
    picked = chosen(choose(rows, rules=Rules(share=0.3, unit="block")))
    assert picked == {
        "model.layers.1.q_proj.weight", "model.layers.1.v_proj.weight", "model.layers.1.up_proj.weight",
        "model.embed_tokens.weight",
    }  # fmt: skip


def test_shares_count_the_whole_model_and_always_show_embedding_and_head() -> None:
    others = [
        blank("model.embed_tokens.weight", shape=(16, 4)),
        blank("model.norm.weight", shape=(4,)),
    ]
    told = choose(model({"q": [1.0, 0.0]}), others=others, rules=Rules(share=0.5)).shares
    model_parameters = 2 * 32 + 64 + 4
    assert (told["tensors"], told["model_tensors"]) == (1, 4)
    assert (told["parameters"], told["model_parameters"]) == (32, model_parameters)
    assert (told["bytes"], told["model_bytes"]) == (64, 2 * model_parameters)
    assert told["share"] == pytest.approx(32 / model_parameters)
    assert told["embedding_share"] == pytest.approx(64 / model_parameters)
    assert told["head_share"] == 0
    assert told["modules"]["q"]["share"] == 0.5
    assert told["modules"]["embedding"]["parameters"] == 0
    assert told["modules"]["head"]["model_tensors"] == 0


def test_t_of_zero_and_a_budget_too_small_are_told() -> None:
    rows = model({"q": [0.5]})
    assert "t = 0" in choose(rows, rules=Rules(t=0.0)).warnings[0]
    assert "budget" in choose(rows, rules=Rules(budget_bytes=1)).warnings[0]


def test_sets_have_a_t_of_their_own_and_go_before_include_but_not_before_exclude() -> None:
    rows = model({"q": [0.9, 0.8, 0.1, 0.0, 0.2]})
    rules = Rules(
        share=0.01, t=0.5, include=("*.1.*", "*.2.*"), exclude=("*.4.*",),
        sets=((("*.0.*", "*.4.*"), 0.0), (("*.0.*", "*.1.*"), 0.25)),
    )  # fmt: skip
    outcome = choose(rows, rules=rules)
    assert [outcome.decisions.get(f"model.layers.{i}.q_proj.weight") for i in range(5)] == [0.0, 0.25, 0.5, 0.5, None]
    assert [row["reason"] for row in outcome.rows] == ["included"] * 3 + ["ranked", "excluded"]


def test_t_is_graded_by_score() -> None:
    rows = model({"q": [1.0, 0.5, 0.0]})
    assert list(choose(rows, rules=Rules(share=1.0, t=0.8, t_top=0.2)).decisions.values()) == pytest.approx(
        [0.2, 0.5, 0.8]
    )


def test_projections_fused_into_one_tensor_share_its_fate_and_its_t() -> None:
    config = {"model_type": "phi3", "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 8}
    rows = [
        Row(**{**blank_row(part, itemsize=2), "score": score, "relative_change": 0.01})  # type: ignore[typeddict-item]
        for layer, scores_of_layer in enumerate([(1.0, 0.0, 0.0), (0.4, 0.9, 0.9), (0.0, 0.0, 0.0)])
        for part, score in zip(
            parts(f"model.layers.{layer}.self_attn.qkv_proj.weight", shape=(16, 8), config=config), scores_of_layer,
            strict=True,
        )
    ]  # fmt: skip
    outcome = choose(rows, rules=Rules(share=0.3, t=1.0, t_top=0.0))
    mean = 0.5 * 0.4 + 0.25 * 0.9 + 0.25 * 0.9
    assert outcome.decisions == {"model.layers.1.self_attn.qkv_proj.weight": pytest.approx(1 - mean)}
    assert [row["selected"] for row in outcome.rows] == [False] * 3 + [True] * 3 + [False] * 3
    assert (outcome.shares["tensors"], outcome.shares["model_tensors"]) == (1, 3)
