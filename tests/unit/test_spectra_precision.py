"""The cheaper precisions: what they promise, and that doubt sends them back to the exact way."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor

from worker.scores import snr, svdr
from worker.scores.trust import single_is_enough, svdr_error
from worker.spectra import group_shape, noise_edge, singular_values, split_count, split_values, uncertainty

SHAPES = [(320, 320), (320, 640), (1280, 320), (280, 1960)]


def weights(shape: tuple[int, int], *, seed: int, strength: float = 4.0, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """Noise with column scales and 24 strong directions of falling strength, σ₁ about `strength` noise edges."""
    generator = torch.Generator().manual_seed(seed)
    left, right = (torch.linalg.qr(torch.randn(size, 24, generator=generator)).Q for size in shape)
    strong = (left * torch.arange(1, 25) ** -0.7) @ right.T * 2 * strength * max(shape) ** 0.5
    scales = torch.exp(0.3 * torch.randn(1, shape[1], generator=generator))
    return (0.02 * (torch.randn(shape, generator=generator) + strong) * scales).to(dtype)


def adapted(base: Tensor, *, seed: int, size: float, shrink: float) -> Tensor:
    noise = torch.randn(base.shape, generator=torch.Generator().manual_seed(1000 + seed))
    plain = base.float()
    return (plain * (1 - shrink) + size * plain.norm() / noise.norm() * noise).to(base.dtype)


def exact(matrix: Tensor) -> Tensor:
    values = np.linalg.svd(matrix.double().numpy(), compute_uv=False)
    return torch.from_numpy(values)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_single_values_are_right_above_the_noise_edge_and_within_their_uncertainty(
    shape: tuple[int, int], dtype: torch.dtype
) -> None:
    matrix = weights(shape, seed=1, dtype=dtype)
    values, true = singular_values(matrix, precision="single"), exact(matrix)
    above = true > noise_edge(true, shape=shape)
    assert int(above.sum()) >= 10
    assert torch.allclose(values[above], true[above], rtol=1e-5, atol=0)
    assert snr(values, shape=shape) == pytest.approx(snr(true, shape=shape), rel=1e-3)
    errors = (values - true).abs()
    assert float(errors.sum()) < 4 * float(uncertainty(values, precision="single").sum())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("strength", [1.0, 6.0])
@pytest.mark.parametrize(("size", "shrink"), [(0.05, 0.01), (0.02, 0.002), (0.01, 0.0), (0.001, 0.0)])
def test_where_single_is_believed_svdr_is_right(
    shape: tuple[int, int], strength: float, size: float, shrink: float
) -> None:
    base = weights(shape, seed=2, strength=strength)
    pair = base, adapted(base, seed=2, size=size, shrink=shrink)
    values = [singular_values(matrix, precision="single") for matrix in pair]
    if single_is_enough(*values, shape=shape):
        true = svdr(*(exact(matrix) for matrix in pair), shape=shape)
        assert svdr(*values, shape=shape) == pytest.approx(true, rel=5e-3, abs=1e-6)
    else:
        assert svdr_error(*values, precision="single") > svdr_error(*values, precision="exact")
        assert size < 0.05  # a large change is never sent back


def test_a_rank_deficient_matrix_is_sent_back() -> None:
    generator = torch.Generator().manual_seed(0)
    base = (torch.randn(300, 40, generator=generator) @ torch.randn(40, 300, generator=generator)).float()
    values = [singular_values(matrix, precision="single") for matrix in (base, base * 1.01)]
    assert not single_is_enough(*values, shape=(300, 300))
    assert snr(singular_values(base), shape=(300, 300)) == math.inf or snr(exact(base), shape=(300, 300)) > 1e6


def test_no_global_switch_is_left_changed_even_after_a_failure() -> None:
    torch.set_float32_matmul_precision("high")
    try:
        singular_values(weights((64, 64), seed=0), precision="single")
        split_values(weights((64, 64), seed=0))
        broken = weights((64, 64), seed=0)
        broken[0, 0] = math.nan
        for failing in (lambda: singular_values(broken, precision="single"), lambda: split_values(broken)):
            with pytest.raises(ValueError, match="NaN"):
                failing()
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="precision"):
        singular_values(torch.ones(2, 2), precision="rough")  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(96, 96), (200, 83), (40, 400)])
def test_split_values_are_those_of_the_column_groups(shape: tuple[int, int]) -> None:
    matrix = weights(shape, seed=3)
    split = split_values(matrix)
    tall = matrix.double() if shape[0] >= shape[1] else matrix.double().T
    size = group_shape(shape)[1]
    count = 2
    assert split_count(shape) == count * size
    deal = torch.randperm(tall.shape[1], generator=torch.Generator().manual_seed(0))[: count * size]
    groups = [tall[:, columns] for columns in torch.split(deal, size)]  # type: ignore[no-untyped-call]
    true = torch.cat([exact(group) for group in groups]).sort(descending=True).values
    assert split.values.shape == split.halves.shape == (count * size,)
    assert torch.allclose(split.values, true, rtol=1e-4, atol=1e-4 * float(true[0]))
    assert group_shape(shape, halves=True) == (max(shape), size // 2)


def test_split_spectra_rank_a_population_of_tensors_as_exact_ones_do() -> None:
    shape, ranks = (768, 256), np.random.default_rng(0)
    rows = []
    for seed in range(20):
        base = weights(shape, seed=seed, strength=float(ranks.uniform(1, 8)))
        size = math.exp(ranks.uniform(math.log(0.005), math.log(0.04)))
        pair = base, adapted(base, seed=seed, size=size, shrink=float(ranks.uniform(0, 0.002)))
        true = [singular_values(matrix) for matrix in pair]
        fast = [split_values(matrix).values for matrix in pair]
        thin = group_shape(shape)
        rows.append((
            svdr(*true, shape=shape), svdr(*fast, shape=shape), snr(true[0], shape=shape), snr(fast[0], shape=thin),
        ))  # fmt: skip
    drop, fast_drop, ratio, fast_ratio = zip(*rows, strict=True)
    assert spearmanr(drop, fast_drop).statistic > 0.98
    assert spearmanr(ratio, fast_ratio).statistic > 0.95
