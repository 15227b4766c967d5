"""The singular value drop ratio: how much of a matrix's spectrum the adaptation took away."""

from typing import Literal

from torch import Tensor

from worker.spectra.mp import noise_edge

Variant = Literal["drop", "abs", "nuclear", "rank", "signed"]


def svdr(base: Tensor, adapted: Tensor, *, shape: tuple[int, ...], variant: Variant = "drop") -> float:
    """The change of the spectrum from `base` to `adapted` (all singular values, descending, fp64).

    `drop` = Σ max(0, σᵢ(W_b) - σᵢ(W_a)) / Σ σᵢ(W_b); `abs` = Σ |σᵢ(W_b) - σᵢ(W_a)| / Σ σᵢ(W_b);
    `signed` = Σ (σᵢ(W_b) - σᵢ(W_a)) / Σ σᵢ(W_b), below zero where the spectrum grew;
    `nuclear` = 1 - Σσᵢ(W_a)/Σσᵢ(W_b), which over all values is the same number as `signed`;
    `rank` = 1 - #{σᵢ(W_a) > τ_a}/#{σᵢ(W_b) > τ_b} with τ the noise edge, 0 where the base has nothing above its edge.
    Source: arXiv 2511.08500 names the ratio; the formulas are a reconstruction. 0 for a zero base.
    """
    if variant == "rank":
        return _rank_drop(base, adapted, shape=shape)
    whole = float(base.sum())
    if whole <= 0:
        return 0.0
    drop = base - adapted
    if variant == "nuclear":
        return 1 - float(adapted.sum()) / whole
    changes = {"drop": drop.clamp(min=0), "abs": drop.abs(), "signed": drop}
    return float(changes[variant].sum()) / whole


def _rank_drop(base: Tensor, adapted: Tensor, *, shape: tuple[int, ...]) -> float:
    before = int((base > noise_edge(base, shape=shape)).sum())
    after = int((adapted > noise_edge(adapted, shape=shape)).sum())
    return 1 - after / before if before else 0.0
