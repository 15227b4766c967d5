"""Spectra made small: which ranks are kept, and that nothing but digits is lost."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from worker.scores.curve import POINTS, curve, display_ranks, thinned, values_at


@given(count=st.integers(1, 20_000), points=st.integers(24, 256))
def test_ranks_rise_from_the_first_to_the_last_and_are_bounded(count: int, points: int) -> None:
    ranks = display_ranks(count, points)
    assert (ranks[0], ranks[-1]) == (1, count)
    assert list(ranks) == sorted(set(ranks))
    assert len(ranks) <= min(count, points)


@pytest.mark.parametrize("count", [5, 256, 4096])
def test_a_curve_holds_the_values_at_its_ranks(count: int) -> None:
    base = torch.rand(count, dtype=torch.float64).sort(descending=True).values
    adapted = base * 1.01
    made = curve(base, adapted)
    assert made.count == count
    for packed, values in ((made.base, base), (made.adapted, adapted)):
        assert len(packed) <= 4 * POINTS
        expected = [float(values[rank - 1]) for rank in display_ranks(count)]
        assert values_at(packed) == pytest.approx(expected, rel=6e-4)


def test_a_thinner_curve_keeps_its_ends() -> None:
    values = [float(4096 - rank) for rank in display_ranks(4096)]
    few = thinned(values, count=4096, points=32)
    assert len(few) == len(display_ranks(4096, 32))
    assert (few[0], few[-1]) == (values[0], values[-1])
    assert few == sorted(few, reverse=True)
    assert thinned(values, count=4096, points=POINTS) == values
