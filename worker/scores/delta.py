"""What kind of change the adaptation made: its rank, and how much of it is the rounding of the stored weights."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from worker.scores.change import compiled_passes, rounding_square
from worker.spectra.room import Room, taken

ROWS = 256  # rows differenced at once
SKETCH = 64  # directions of the random sketch of Δ
LEFT_OVER = 0.02  # share of ‖Δ‖² beyond rounding that a low-rank change may leave outside its sketch


@dataclass(frozen=True, kw_only=True)
class DeltaShape:
    """The shape of Δ = W_a - W_b."""

    rounding_share: float
    """expected norm of the rounding of W_a to its stored dtype, over ‖Δ‖_F, at most 1"""
    top_energy: float
    """share of Δ's energy inside a random sketch of 64 directions"""
    rank: int | None
    """directions of Δ above the noise edge of the rest; None where the sketch was too small to count them"""
    low_rank: bool
    """whether Δ looks like a merged LoRA: nothing but rounding lies outside the sketch"""


def delta_shape(
    base: Tensor, adapted: Tensor, *, delta_norm: float, rounding: float | None = None, room: Room | None = None
) -> DeltaShape:
    """Measure Δ of two equally shaped matrices whose difference has the Frobenius norm `delta_norm` > 0.

    `rounding`: `rounding_square(adapted)`, where it is known. The block `square` of the `room` is overwritten.

    A randomised range finder without power iteration (Halko, Martinsson & Tropp, arXiv 0909.4061, algorithm 4.1), in
    fp32, with a fixed seed, on every k-th row of the long side so that about as many are left as the short side has: a
    low rank is that of almost every such sample. A rank is counted against the Marchenko-Pastur edge s(√n + √m) of
    what the sketch left over, s² its energy per entry. Where rounding is over half of Δ's energy nothing can be told
    and `low_rank` is False.
    """
    share = min(1.0, math.sqrt(rounding_square(adapted) if rounding is None else rounding) / delta_norm)
    sample = _sample(base, adapted, room=room)
    long, short = sample.shape
    size, norm = min(SKETCH, short // 4), float(sample.norm())
    if size < 1 or norm == 0:
        return DeltaShape(rounding_share=share, top_energy=1.0, rank=None, low_rank=False)
    values = _sketch(sample, size=size) / norm
    energy = min(1.0, float(values.square().sum()))
    noise = math.sqrt((1 - energy) / ((short - size) * long))
    # 1.1: the sketch leans towards the larger directions of the noise, so what it leaves over is a little too small
    rank = int((values > max(1.1 * noise * (math.sqrt(short) + math.sqrt(long)), 1e-6)).sum())
    low = rank < size and share**2 < 0.5 and 1 - energy <= LEFT_OVER + 1.5 * share**2
    return DeltaShape(rounding_share=share, top_energy=energy, rank=rank if rank < size else None, low_rank=low)


def effective_rank(values: Tensor) -> float:
    """exp of the entropy of σᵢ/Σσ (Roy & Vetterli, EUSIPCO 2007): 1 for one direction, min(n, m) for equal ones."""
    total = float(values.sum())
    if total <= 0:
        return 0.0
    shares = values[values > 0] / total
    return math.exp(-float((shares * shares.log()).sum()))


def _sample(base: Tensor, adapted: Tensor, *, room: Room | None) -> Tensor:
    """Evenly spaced rows of Δ turned tall, in fp32: at least as many as it has columns, less than twice as many.

    Taken in the orientation that is stored, by blocks of rows: no second copy of the sample.
    """
    tall = base.shape[0] >= base.shape[1]
    step = max(1, max(base.shape) // max(1, min(base.shape)))
    down, along = (step, 1) if tall else (1, step)
    rows, columns = base.shape
    shape = (-(-rows // down), -(-columns // along))
    sample = taken(room, "square", shape, torch.float32, device=base.device)
    fast = compiled_passes(base, adapted)
    if fast is not None:
        fast.subtract(base, adapted, down=down, along=along, out=sample)
        return sample if tall else sample.T
    blocks = zip(*(each.split(ROWS) for each in (sample, base[::down], adapted[::down])), strict=True)  # type: ignore[no-untyped-call]
    for out, first, second in blocks:
        change = second.to(torch.float32, copy=True).sub_(first.float())
        out.copy_(change[:, ::along])
    return sample if tall else sample.T


def _sketch(tall: Tensor, *, size: int) -> Tensor:
    """The singular values of a tall matrix within the range of its transpose times `size` Gaussian vectors; fp64."""
    generator = torch.Generator().manual_seed(0)
    probes = torch.randn(tall.shape[0], size, generator=generator).to(tall.device)
    basis = torch.linalg.qr(tall.T @ probes).Q  # short x size
    image = (tall @ basis).to(torch.float64)  # long x size
    values: Tensor = torch.linalg.eigvalsh(image.T @ image).flip(0)
    return values.clamp_(min=0).sqrt_().cpu()
