"""The row of one tensor, as `GET /merges/{id}/scores` returns it: JSON-safe, so infinite values stand as null."""

import math
from dataclasses import dataclass
from typing import Literal, TypedDict

from torch import Tensor

from worker.scores.change import relative_change, swci
from worker.scores.delta import DeltaShape, effective_rank
from worker.scores.parts import Part
from worker.scores.snr import Estimator, snr
from worker.scores.svdr import Variant, svdr
from worker.spectra.mp import noise_edge


class Row(TypedDict):
    """Scores and fate of one tensor. A score that is infinite is null and named in `infinite`; it ranks above all."""

    name: str
    tensor: str
    """the stored tensor; `name` adds which part of it the row is about, where it holds several matrices"""
    unit: str
    """what is selected together with it"""
    module_type: str
    layer: int | None
    expert: int | None
    shape: list[int]
    parameters: int
    nbytes: int
    snr: float | None
    swci: float | None
    svdr: float | None
    relative_change: float | None
    score: float | None
    selected: bool
    t: float
    snr_mp_median: float | None
    snr_spectrum: float | None
    snr_adapted: float | None
    svdr_drop: float | None
    svdr_abs: float | None
    svdr_nuclear: float | None
    svdr_rank: float | None
    svdr_signed: float | None
    svdr_error: float | None
    """expected error of `svdr_drop` by rounding; null where `precision` is fast"""
    snr_thinner: float | None
    svdr_thinner: float | None
    """of fast rows: `snr` and `svdr` again, estimated from column groups half as wide"""
    snr_doubt: float | None
    svdr_doubt: float | None
    """of fast rows: expected relative error of `snr` and `svdr`, but for what all tensors of the group share"""
    precision: str | None
    noise_edge: float | None
    noise_edge_adapted: float | None
    base_norm: float | None
    delta_norm: float | None
    effective_rank: float | None
    effective_rank_adapted: float | None
    delta_rank: int | None
    delta_top_energy: float | None
    rounding_share: float | None
    low_rank_delta: bool | None
    infinite: list[str]
    reason: str
    """why it was or was not selected: ranked, included, excluded, below the cut, unchanged, not scored"""


VARIANTS: tuple[Variant, ...] = ("drop", "abs", "nuclear", "rank", "signed")


def blank_row(part: Part, *, itemsize: int) -> Row:
    """The row of a matrix without scores yet, unselected (t = 1: the adapted model's); `itemsize` in bytes."""
    size = math.prod(part.shape)
    return Row(
        name=part.name, tensor=part.tensor, unit=part.unit, module_type=part.module_type, layer=part.layer,
        expert=part.expert, shape=list(part.shape), parameters=size, nbytes=size * itemsize,
        snr=None, swci=None, svdr=None, relative_change=None, score=None, selected=False, t=1.0,
        snr_mp_median=None, snr_spectrum=None, snr_adapted=None, svdr_drop=None, svdr_abs=None, svdr_nuclear=None,
        svdr_rank=None, svdr_signed=None, svdr_error=None, snr_thinner=None, svdr_thinner=None, snr_doubt=None,
        svdr_doubt=None, precision=None, noise_edge=None, noise_edge_adapted=None, base_norm=None, delta_norm=None,
        effective_rank=None, effective_rank_adapted=None, delta_rank=None, delta_top_energy=None, rounding_share=None,
        low_rank_delta=None, infinite=[], reason="not scored",
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SpectrumPair:
    """Singular values of base and adapted matrix, descending, fp64, and what they are worth."""

    base: Tensor
    adapted: Tensor
    shape: tuple[int, ...]
    """of the matrices that have these values: the row's own where they are exact, else what the noise edge goes by"""
    precision: Literal["exact", "fast"]
    svdr_error: float | None = None
    """expected absolute error of `svdr` by rounding, of exact spectra"""
    thinner: "SpectrumPair | None" = None
    """of estimated spectra: the same from column groups half as wide, which tells how far the sampling matters"""

    def snr(self, *, estimator: Estimator, reference: str) -> float:
        """The ratio of the base, the adapted matrix, or the mean of both."""
        base, adapted = (snr(values, shape=self.shape, estimator=estimator) for values in (self.base, self.adapted))
        return {"base": base, "adapted": adapted, "mean": (base + adapted) / 2}[reference]

    def svdr(self, *, variant: Variant) -> float:
        return svdr(self.base, self.adapted, shape=self.shape, variant=variant)


def make_row(
    row: Row, *, spectra: SpectrumPair, base_norm: float, delta_norm: float, delta: DeltaShape | None,
    estimator: Estimator, reference: str, variant: Variant,
) -> Row:  # fmt: skip
    """`row` with its scores filled in.

    The norms are Frobenius norms, `delta` is the shape of the change where there was one. `snr` is by `estimator` on
    `reference` (base, adapted, or the mean of both); `svdr` is the chosen `variant`; all others stand beside them.
    """
    change = relative_change(base_norm=base_norm, delta_norm=delta_norm)
    ratio = spectra.snr(estimator=estimator, reference=reference)
    drops = {each: spectra.svdr(variant=each) for each in VARIANTS}
    numbers = {
        "snr": ratio, "swci": swci(snr=ratio, relative_change=change), "svdr": drops[variant],
        "snr_adapted": spectra.snr(estimator=estimator, reference="adapted"),
        "relative_change": change, "base_norm": base_norm, "delta_norm": delta_norm,
        **{f"svdr_{each}": drop for each, drop in drops.items()}, **_of_spectra(spectra),
    }  # fmt: skip
    if spectra.thinner:
        numbers["snr_thinner"] = spectra.thinner.snr(estimator=estimator, reference=reference)
        numbers["svdr_thinner"] = spectra.thinner.svdr(variant=variant)
    infinite = sorted(key for key, value in numbers.items() if math.isinf(value))
    finite = {key: None if key in infinite else value for key, value in numbers.items()}
    facts = {**finite, **_shape(delta), "precision": spectra.precision, "infinite": infinite, "reason": ""}
    facts["svdr_error"] = spectra.svdr_error
    return Row(**{**row, **facts})  # type: ignore[typeddict-item]


def _of_spectra(spectra: SpectrumPair) -> dict[str, float]:
    """What is told of the spectra whatever the recipe ranks by; ranks only of exact ones."""
    base, adapted, shape = spectra.base, spectra.adapted, spectra.shape
    numbers = {
        "snr_mp_median": snr(base, shape=shape), "snr_spectrum": snr(base, shape=shape, estimator="spectrum"),
        "noise_edge": noise_edge(base, shape=shape), "noise_edge_adapted": noise_edge(adapted, shape=shape),
    }  # fmt: skip
    if spectra.precision == "exact":
        numbers |= {"effective_rank": effective_rank(base), "effective_rank_adapted": effective_rank(adapted)}
    return numbers


def _shape(delta: DeltaShape | None) -> dict[str, float | bool | None]:
    if delta is None:
        return {}
    return {
        "delta_rank": delta.rank, "delta_top_energy": delta.top_energy, "rounding_share": delta.rounding_share,
        "low_rank_delta": delta.low_rank,
    }  # fmt: skip


def is_scored(row: Row) -> bool:
    """Whether the row has scores at all."""
    return row["relative_change"] is not None or "relative_change" in row["infinite"]


def number(row: Row, key: str) -> float:
    """A score of a scored row as a number again, infinite where the row says so."""
    value = row[key]  # type: ignore[literal-required]
    return math.inf if key in row["infinite"] else float(value)
