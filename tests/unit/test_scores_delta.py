"""Rank, rounding and LoRA shape of a change."""

import math

import pytest
import torch
from torch import Tensor

from worker.scores import delta_shape, effective_rank
from worker.spectra import singular_values

SHAPE = (256, 640)


def base(dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return (0.02 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))).to(dtype)


def adapted(change: Tensor, *, size: float, dtype: torch.dtype = torch.bfloat16) -> tuple[Tensor, Tensor, float]:
    """Base, adapted model with `change` scaled to `size` of the base's norm, and the norm of the true difference."""
    one = base(dtype)
    two = (one.float() + size * one.float().norm() / change.norm() * change).to(dtype)
    return one, two, float((two.double() - one.double()).norm())


def low_rank(rank: int) -> Tensor:
    generator = torch.Generator().manual_seed(rank)
    return torch.randn(SHAPE[0], rank, generator=generator) @ torch.randn(rank, SHAPE[1], generator=generator)


@pytest.mark.parametrize("rank", [1, 8, 32])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_merged_lora_is_recognised_and_its_rank_counted(rank: int, dtype: torch.dtype) -> None:
    one, two, norm = adapted(low_rank(rank), size=0.02, dtype=dtype)
    shape = delta_shape(one, two, delta_norm=norm)
    assert shape.low_rank
    assert shape.rank is not None
    assert rank <= shape.rank <= rank + 3  # rounding a rank-1 change leaves a pattern of its own


def test_full_rank_changes_are_not_taken_for_a_lora() -> None:
    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    u, _, v = torch.linalg.svd(noise, full_matrices=False)
    falling = u @ torch.diag(torch.arange(1, 257, dtype=torch.float32) ** -0.5) @ v
    for change in (noise, falling):
        shape = delta_shape(*adapted(change, size=0.02)[:2], delta_norm=adapted(change, size=0.02)[2])
        assert not shape.low_rank
        assert shape.top_energy < 0.9
    one, two, norm = adapted(noise, size=0.05)
    assert delta_shape(one, two, delta_norm=norm).rank == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_rounding_share_is_the_rounding(dtype: torch.dtype) -> None:
    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(2))
    exact = base(dtype).float() + 0.01 * base().float().norm() / noise.norm() * noise
    two = exact.to(dtype)
    norm = float((two.double() - base(dtype).double()).norm())
    true = float((two.double() - exact.double()).norm()) / norm
    assert delta_shape(base(dtype), two, delta_norm=norm).rounding_share == pytest.approx(true, rel=0.05)


def test_a_change_at_the_level_of_rounding_is_never_called_low_rank() -> None:
    one, two, norm = adapted(low_rank(4), size=5e-4)
    shape = delta_shape(one, two, delta_norm=norm)
    assert shape.rounding_share > 0.7
    assert not shape.low_rank


def test_matrices_too_thin_for_a_sketch_and_equal_runs() -> None:
    thin = torch.ones(3, 50)
    assert delta_shape(thin, 2 * thin, delta_norm=150**0.5).rank is None
    one, two, norm = adapted(low_rank(8), size=0.02)
    assert delta_shape(one, two, delta_norm=norm) == delta_shape(one, two, delta_norm=norm)


def test_effective_rank_counts_equal_directions() -> None:
    values = torch.tensor([2.0] * 5 + [0.0] * 3, dtype=torch.float64)
    assert effective_rank(values) == pytest.approx(5)
    assert effective_rank(torch.zeros(4, dtype=torch.float64)) == 0
    assert effective_rank(torch.tensor([1.0, math.exp(-1)], dtype=torch.float64)) < 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_measured_stays_as_it_is(dtype: torch.dtype) -> None:
    one, two, norm = adapted(low_rank(3), size=0.02, dtype=dtype)
    before = one.clone(), two.clone()
    delta_shape(one, two, delta_norm=norm)
    delta_shape(one.T, two.T, delta_norm=norm)
    singular_values(one)
    singular_values(two, precision="single")
    assert torch.equal(one, before[0])
    assert torch.equal(two, before[1])
