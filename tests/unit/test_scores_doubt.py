"""How far estimates rank a group as exact scores would: what is expected, and what it is told from."""

import math
from typing import Any

import pytest
import torch
from scipy.stats import spearmanr

from worker.scores import Part, Row, blank_row
from worker.scores.doubt import LEAST_AGREEMENT, doubt, expected_agreement, judge


@pytest.mark.parametrize("error", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("count", [2, 6, 30])
def test_the_expected_agreement_is_the_mean_over_many_draws(count: int, error: float) -> None:
    generator = torch.Generator().manual_seed(count)
    sizes = torch.randn(count, generator=generator, dtype=torch.float64)
    draws = sizes + error * torch.randn(400, count, generator=generator, dtype=torch.float64)
    mean = sum(float(spearmanr(sizes, draw).statistic) for draw in draws) / len(draws)
    assert expected_agreement(sizes, error=error) == pytest.approx(mean, abs=0.05)


def test_what_all_share_is_no_doubt_and_what_scatters_is() -> None:
    values = [1.0 * 1.5**i for i in range(12)]
    alike = doubt(values, thinner=[2 * value for value in values])
    scattered = doubt(values, thinner=[value * (3.0 if i % 2 else 1.0) for i, value in enumerate(values)])
    assert alike.agreement > LEAST_AGREEMENT > scattered.agreement
    assert alike.error < 0.1 < scattered.error


def test_close_neighbours_in_a_small_group_are_doubted_and_distant_ones_are_not() -> None:
    close, distant = [1.00, 1.02, 1.05, 1.09, 1.11, 1.15], [1.0, 3.0, 9.0, 27.0, 81.0, 243.0]
    assert doubt(close, thinner=close).agreement < LEAST_AGREEMENT
    assert doubt(distant, thinner=distant).agreement > LEAST_AGREEMENT


@pytest.mark.parametrize("bad", [0.0, -1.0, math.inf])
def test_what_has_no_logarithm_cannot_be_judged(bad: float) -> None:
    assert doubt([1.0, 2.0], thinner=[1.0, bad]).agreement == 0
    assert doubt([bad, 2.0], thinner=[1.0, 2.0]).error == math.inf


def row(index: int, *, precision: str = "fast", shape: tuple[int, ...] = (8, 8), **facts: Any) -> Row:
    part = Part(
        name=f"layers.{index}.q_proj.weight", tensor=f"layers.{index}.q_proj.weight", unit="", module_type="q",
        layer=index, expert=None, shape=shape, cut=lambda tensor: tensor,
    )  # fmt: skip
    size = 2.0**index
    known = {"snr": size, "snr_thinner": size, "svdr": size, "svdr_thinner": size, "relative_change": 0.01, **facts}
    return Row(**{**blank_row(part, itemsize=2), **known, "precision": precision})  # type: ignore[typeddict-item]


def test_a_group_is_judged_by_snr_too() -> None:
    quiet = [row(i) for i in range(10)]
    noisy = [row(i, snr_thinner=2.0**i * (20.0 if i % 2 else 1.0)) for i in range(10)]
    weights = {"swci": 0.5, "svdr": 0.5, "snr": 0.0, "relative_change": 0.0}
    (told, calm), (_, loud) = (judge(rows, weights=weights) for rows in (quiet, noisy))
    assert calm > LEAST_AGREEMENT > loud
    assert all(0 < (each["snr_doubt"] or 0) < 0.2 for each in told)
    assert judge(noisy, weights={"relative_change": 1.0})[1] == 1


def test_exact_rows_and_other_shapes_are_not_compared_with_estimates() -> None:
    weights = {"svdr": 1.0}
    assert judge([row(0), row(1, precision="exact")], weights=weights)[1] == 0
    assert judge([row(0), row(1, shape=(8, 16))], weights=weights)[1] == 0
    assert judge([row(0, relative_change=0.0)], weights=weights)[1] == 1  # nothing that is ranked
