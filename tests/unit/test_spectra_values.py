"""Singular values against independent fp64 computations, and what they promise."""

import numpy as np
import pytest
import torch
from torch import Tensor

from worker.spectra import flops, noise_edge, resolution, singular_values, split_values

SHAPES = [(192, 192), (128, 256), (96, 384), (64, 448), (448, 64), (384, 96), (1, 50), (50, 1), (1, 1)]


def weights(shape: tuple[int, int], *, seed: int = 0, rank: int = 8) -> Tensor:
    """A weight matrix as training makes them: noise and some strong directions, in bf16."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(shape, generator=generator) * 0.02
    left, right = (torch.randn(size, rank, generator=generator) for size in shape)
    return (noise + 0.02 * left @ right.T / rank).to(torch.bfloat16)


def reference(matrix: Tensor) -> np.ndarray:
    return np.linalg.svd(matrix.to(torch.float64).numpy(), compute_uv=False)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_values_are_those_of_an_fp64_svd(shape: tuple[int, int], dtype: torch.dtype) -> None:
    matrix = weights(shape).to(dtype)
    values = singular_values(matrix)
    assert values.dtype == torch.float64
    assert values.shape == (min(shape),)
    np.testing.assert_allclose(values.numpy(), reference(matrix), rtol=1e-9, atol=1e-9 * float(values[0]))


def test_values_of_a_rank_deficient_matrix_are_zero_beyond_its_rank() -> None:
    generator = torch.Generator().manual_seed(1)
    left, right = (torch.randint(-3, 4, size, generator=generator) for size in ((300, 20), (20, 90)))
    matrix = (left @ right).to(torch.float32)  # small integers: the rank is exactly 20
    values = singular_values(matrix)
    assert int((values > 0).sum()) == 20
    np.testing.assert_allclose(values[:20].numpy(), reference(matrix)[:20], rtol=1e-12)


def test_values_at_condition_one_million() -> None:
    generator = torch.Generator().manual_seed(2)
    left = torch.linalg.qr(torch.randn(200, 100, generator=generator, dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(100, 100, generator=generator, dtype=torch.float64)).Q
    true = torch.logspace(0, -6, 100, dtype=torch.float64)
    values = singular_values(left @ torch.diag(true) @ right.T)
    edge = noise_edge(true, shape=(200, 100))
    above = true > edge
    assert torch.allclose(values[above], true[above], rtol=1e-4, atol=0)
    assert torch.allclose(values, true, rtol=1e-3, atol=0)  # the smallest too: 1e-6 of the largest is above resolution
    assert resolution((200, 100), sigma_1=1.0) < 1e-6


@pytest.mark.parametrize("factor", [2.0**-100, 2.0**60, 3.7e-19, 1e17])
def test_values_scale_with_the_matrix(factor: float) -> None:
    matrix = weights((40, 100)).float()
    scaled = singular_values(matrix.double() * factor)
    np.testing.assert_allclose(scaled.numpy(), singular_values(matrix).numpy() * factor, rtol=1e-12)


def test_values_of_the_smallest_and_largest_floats() -> None:
    tiny = torch.full((3, 2), 1e-40, dtype=torch.float32)
    huge = torch.full((3, 2), 3e38, dtype=torch.float32)
    assert float(singular_values(tiny)[0]) == pytest.approx(float(tiny[0, 0]) * 6**0.5, rel=1e-12)
    assert float(singular_values(huge)[0]) == pytest.approx(float(huge[0, 0]) * 6**0.5, rel=1e-12)


def test_a_zero_and_an_empty_matrix() -> None:
    assert singular_values(torch.zeros(4, 3)).tolist() == [0, 0, 0]
    assert singular_values(torch.zeros(0, 3)).shape == (0,)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_nonfinite_entries_are_refused(bad: float) -> None:
    matrix = weights((8, 8))
    matrix[3, 4] = bad
    with pytest.raises(ValueError, match="NaN or infinite"):
        singular_values(matrix)


def test_only_matrices_have_a_spectrum() -> None:
    with pytest.raises(ValueError, match="two dimensions"):
        singular_values(torch.zeros(3))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_values_are_the_same_twice_and_the_input_and_the_switches_stay(dtype: torch.dtype) -> None:
    matrix = weights((70, 200)).to(dtype)
    before, switch, threads = matrix.clone(), torch.get_float32_matmul_precision(), torch.get_num_threads()
    for precision in ("exact", "single"):
        first, second = (singular_values(matrix, precision=precision) for _ in range(2))  # type: ignore[arg-type]
        assert torch.equal(first, second)
    assert torch.equal(split_values(matrix).halves, split_values(matrix).halves)
    assert torch.equal(matrix, before)
    assert (torch.get_float32_matmul_precision(), torch.get_num_threads()) == (switch, threads)


def test_flops_grow_with_the_short_side() -> None:
    assert flops((4, 10)) == flops((10, 4)) == 4 * 4 * 10 + 4**3
