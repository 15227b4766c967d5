"""How far the scores of a pair of spectra may be off, and whether a cheaper precision is good enough for them."""

import math

import torch
from torch import Tensor

from worker.scores.svdr import svdr
from worker.spectra.values import Precision, uncertainty

SVDR_TOLERANCE = 1.5e-2
"""Largest expected relative error of `svdr` at which `single` spectra are used. The expectation is cautious: on 45
pairs (384 to 1024 columns, aspect 1 to 4, σ₁ of 2 to 85 times the median, changes of 0.03 to 4 %, some of low rank) no
pair within it was off by more than 2.9e-3, and most by less than 5e-4."""
SVDR_FLOOR = 2e-6
"""Expected absolute error of `svdr` at which `single` spectra are used however small `svdr` is: a spectrum that only
grows has none. Rounding weights to bf16 alone makes an `svdr` of 2e-5 to 4e-5 (512 to 1024 columns)."""
MEDIAN_TOLERANCE = 1e-3
"""Largest expected relative error of the median, on which the noise edge rests."""


def svdr_error(base: Tensor, adapted: Tensor, *, precision: Precision) -> float:
    """The expected absolute error of `svdr` by rounding: its bias and three standard deviations.

    Each drop dᵢ is taken as known but for a normal error of size eᵢ, by `uncertainty` of both values. Then
    E max(0, dᵢ + ε) - max(0, dᵢ) = eᵢφ(z) + dᵢΦ(z) - max(0, dᵢ) with z = dᵢ/eᵢ: noise makes drops where there is none;
    and about Φ(z)eᵢ² of its variance passes into the sum.
    """
    whole = float(base.sum())
    if whole <= 0:
        return 0.0
    drop = base - adapted
    size = torch.hypot(*(uncertainty(values, precision=precision) for values in (base, adapted))).clamp(min=1e-300)
    z = drop / size
    above = torch.special.ndtr(z)
    bias = size * torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi) + drop * above - drop.clamp(min=0)
    return (float(bias.sum()) + 3 * math.sqrt(float((size.square() * above).sum()))) / whole


def single_is_enough(base: Tensor, adapted: Tensor, *, shape: tuple[int, ...]) -> bool:
    """Whether spectra of precision `single` give SNR and SVDR as well as `exact` ones would."""
    drop = svdr(base, adapted, shape=shape)
    if svdr_error(base, adapted, precision="single") > max(SVDR_TOLERANCE * drop, SVDR_FLOOR):
        return False
    return all(_median_error(values) <= MEDIAN_TOLERANCE for values in (base, adapted))


def _median_error(values: Tensor) -> float:
    middle = values.numel() // 2
    if float(values[middle]) <= 0:
        return math.inf if float(values[0]) > 0 else 0.0
    return float(uncertainty(values, precision="single")[middle]) / float(values[middle])
