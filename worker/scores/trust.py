"""How far the scores of a pair of spectra may be off, and whether a cheaper precision is good enough for them."""

import math

from torch import Tensor

from worker.scores.svdr import svdr
from worker.spectra.values import Precision, uncertainty

SVDR_TOLERANCE = 2e-2
"""Largest expected relative error of `svdr` at which `single` spectra are used. The expectation is cautious: on
weight-like matrices (512 to 2048 columns, aspect 1 to 4, σ₁ of 2 to 80 times the bulk, changes of 0.1 to 5 %) no pair
within it was off by more than 4.3e-3, and most by less than 5e-4."""
SVDR_FLOOR = 2e-6
"""Expected absolute error of `svdr` at which `single` spectra are used however small `svdr` is: a spectrum that only
grows has none. Rounding weights to bf16 alone makes an `svdr` of 2e-5 to 4e-5 (512 to 1024 columns)."""
MEDIAN_TOLERANCE = 1e-3
"""Largest expected relative error of the median, on which the noise edge rests."""
SPLIT_TOLERANCE = 0.25
"""Largest relative difference of `svdr` between column groups and their halves at which the split is believed. Where
a few strong directions make up the drop, a split counts them √groups times, and the difference is up to 0.29."""


def svdr_error(base: Tensor, adapted: Tensor, *, precision: Precision) -> float:
    """The expected absolute error of `svdr` by rounding: errors of all values added up, or in quadrature times eight.

    The second is smaller where many small errors are independent, the first where a few small values dominate.
    """
    whole = float(base.sum())
    if whole <= 0:
        return 0.0
    errors = [uncertainty(values, precision=precision) for values in (base, adapted)]
    straight = math.fsum(float(each.sum()) for each in errors)
    quadrature = math.sqrt(math.fsum(float(each.square().sum()) for each in errors))
    return min(straight, 8 * quadrature) / whole


def single_is_enough(base: Tensor, adapted: Tensor, *, shape: tuple[int, ...]) -> bool:
    """Whether spectra of precision `single` give SNR and SVDR as well as `exact` ones would."""
    drop = svdr(base, adapted, shape=shape)
    if svdr_error(base, adapted, precision="single") > max(SVDR_TOLERANCE * drop, SVDR_FLOOR):
        return False
    return all(_median_error(values) <= MEDIAN_TOLERANCE for values in (base, adapted))


def sampling_difference(*, whole: float, halves: float) -> float:
    """The relative difference of a score between column groups and their halves: what a thinner sample changes.

    How stable an estimate is, not how far off: bias that both samples share (measured: 14 to 41 % of `svdr` on three
    synthetic pairs with differences of 2.6 to 25 %) does not show.
    """
    larger = max(abs(whole), abs(halves))
    return abs(whole - halves) / larger if larger > 0 else 0.0


def _median_error(values: Tensor) -> float:
    middle = values.numel() // 2
    if float(values[middle]) <= 0:
        return math.inf if float(values[0]) > 0 else 0.0
    return float(uncertainty(values, precision="single")[middle]) / float(values[middle])
