"""The scores against independent numpy computations and against what they are meant to tell."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from worker.scores import relative_change, snr, squared_norms, svdr, swci
from worker.scores.snr import Estimator
from worker.scores.svdr import Variant
from worker.spectra import mp_median, noise_edge, singular_values

SHAPES = [(256, 256), (128, 256), (256, 64), (64, 448)]


def pair(shape: tuple[int, int], *, change: float = 0.02, planted: int = 12) -> tuple[Tensor, Tensor]:
    """A base with some strong directions, and an adaptation of it by `change` in the Frobenius norm, both in bf16."""
    generator = torch.Generator().manual_seed(math.prod(shape))
    left, right = (torch.randn(size, planted, generator=generator) for size in shape)
    base = 0.02 * (torch.randn(shape, generator=generator) + left @ right.T)
    delta = torch.randn(shape, generator=generator) - base / base.std()
    adapted = base + change * base.norm() / delta.norm() * delta
    return base.bfloat16(), adapted.bfloat16()


def numpy_values(matrix: Tensor) -> np.ndarray:
    return np.linalg.svd(matrix.double().numpy(), compute_uv=False)


def numpy_snr(values: np.ndarray, *, shape: tuple[int, int], estimator: str) -> float:
    beta = min(shape) / max(shape)
    if estimator == "spectrum":
        edge = (np.quantile(values, 0.75) - np.quantile(values, 0.25)) / 1.349 * (1 + math.sqrt(beta))
    else:
        edge = np.median(values) / mp_median(beta) * (1 + math.sqrt(beta))
    noise = values[values <= edge].sum()
    ratio = values[values > edge].sum() / noise if noise else math.inf  # the literal formula at aspect 1:4
    return float(ratio / values[0] if estimator == "spectrum" else ratio)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("estimator", ["mp_median", "spectrum"])
def test_snr_is_that_of_numpy(shape: tuple[int, int], estimator: Estimator) -> None:
    matrix, _ = pair(shape)
    expected = numpy_snr(numpy_values(matrix), shape=shape, estimator=estimator)
    assert snr(singular_values(matrix), shape=shape, estimator=estimator) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("change", [0.1, 0.01, 0.002])
def test_svdr_and_its_variants_are_those_of_numpy(shape: tuple[int, int], change: float) -> None:
    base, adapted = pair(shape, change=change)
    one, two = numpy_values(base), numpy_values(adapted)
    values = singular_values(base), singular_values(adapted)
    drop = one - two
    expected: dict[Variant, float] = {
        "drop": np.maximum(drop, 0).sum() / one.sum(), "abs": np.abs(drop).sum() / one.sum(),
        "signed": drop.sum() / one.sum(), "nuclear": 1 - two.sum() / one.sum(),
    }  # fmt: skip
    for variant, number in expected.items():
        assert svdr(*values, shape=shape, variant=variant) == pytest.approx(number, rel=1e-6), variant


def test_svdr_by_rank_counts_the_directions_above_the_edge() -> None:
    base, _ = pair((128, 256), planted=12)
    fewer, _ = pair((128, 256), planted=9)
    values = singular_values(base), singular_values(fewer)
    assert svdr(*values, shape=(128, 256), variant="rank") == pytest.approx(1 - 9 / 12)
    assert svdr(*reversed(values), shape=(128, 256), variant="rank") == pytest.approx(1 - 12 / 9)
    noise = singular_values(torch.zeros(128, 256))
    assert svdr(noise, values[0], shape=(128, 256), variant="rank") == 0


@pytest.mark.parametrize("shape", [(512, 512), (512, 1024), (256, 1024)])
def test_pure_noise_has_no_signal_by_the_median_but_much_by_the_quartiles(shape: tuple[int, int]) -> None:
    values = singular_values(torch.randn(shape, generator=torch.Generator().manual_seed(5)))
    edge = noise_edge(values, shape=shape)
    assert float(values[0]) / edge < 1.02  # the largest of a finite sample may pass the limit's edge by a hair
    assert snr(values.clamp(max=edge), shape=shape) == 0
    assert snr(values, shape=shape, estimator="spectrum") * float(values[0]) > 0.5


@pytest.mark.parametrize("planted", [16, 64])
def test_planted_directions_are_found(planted: int) -> None:
    shape = (1024, 1024)
    generator = torch.Generator().manual_seed(planted)
    left, right = (torch.linalg.qr(torch.randn(1024, planted, generator=generator)).Q for _ in range(2))
    matrix = torch.randn(shape, generator=generator) + 200 * left @ right.T  # 200 is 3.1 edges of the noise
    values = singular_values(matrix)
    assert int((values > noise_edge(values, shape=shape)).sum()) == planted


@pytest.mark.parametrize("factor", [2.0**-20, 1e-3, 1e3])
def test_scaling_both_models_changes_nothing(factor: float) -> None:
    base, adapted = (matrix.double() for matrix in pair((96, 200)))
    plain, scaled = (
        (singular_values(base * f), singular_values(adapted * f), squared_norms(base * f, adapted * f))
        for f in (1.0, factor)
    )
    for number in (lambda s: snr(s[0], shape=(96, 200)), lambda s: svdr(s[0], s[1], shape=(96, 200)),
                   lambda s: relative_change(base_norm=s[2][0] ** 0.5, delta_norm=s[2][2] ** 0.5)):  # fmt: skip
        assert number(scaled) == pytest.approx(number(plain), rel=1e-9)
    literal = [snr(s[0], shape=(96, 200), estimator="spectrum") for s in (plain, scaled)]
    assert literal[1] == pytest.approx(literal[0] / factor, rel=1e-9)  # the published formula has a unit


def test_svdr_is_bounded_by_the_norm_of_the_change() -> None:
    base, adapted = pair((128, 256), change=0.05)
    values = singular_values(base), singular_values(adapted)
    bound = math.sqrt(128) * float((adapted.double() - base.double()).norm()) / float(values[0].sum())
    assert 0 < svdr(*values, shape=(128, 256)) <= svdr(*values, shape=(128, 256), variant="abs") <= bound


def test_snr_is_infinite_without_a_noise_floor_and_zero_for_zeros() -> None:
    assert snr(torch.tensor([3.0, 0.0, 0.0, 0.0], dtype=torch.float64), shape=(4, 4)) == math.inf
    assert snr(torch.zeros(4, dtype=torch.float64), shape=(4, 4)) == 0
    assert snr(torch.tensor([1.0, 1.0], dtype=torch.float64), shape=(2, 2), estimator="spectrum") == math.inf


def test_norms_are_fp64_sums_and_show_what_is_not_finite() -> None:
    base, adapted = pair((700, 1600))  # more than one chunk
    expected = [float(m.double().square().sum()) for m in (base, adapted, adapted.double() - base.double())]
    assert squared_norms(base, adapted) == pytest.approx(expected, rel=1e-12)
    base[3, 5] = math.nan
    assert math.isnan(squared_norms(base, adapted)[0])
    huge = torch.full((2, 2), 3e38)
    assert squared_norms(huge, huge)[0] == pytest.approx(4 * float(huge[0, 0]) ** 2)


def test_change_and_its_weighted_intensity_at_the_edges() -> None:
    assert relative_change(base_norm=2.0, delta_norm=1.0) == 0.5
    assert relative_change(base_norm=0.0, delta_norm=0.0) == 0
    assert relative_change(base_norm=0.0, delta_norm=1.0) == math.inf
    assert swci(snr=3.0, relative_change=0.5) == 1.5
    assert swci(snr=math.inf, relative_change=0.0) == 0
    assert swci(snr=0.0, relative_change=math.inf) == 0
    assert swci(snr=math.inf, relative_change=0.1) == math.inf
