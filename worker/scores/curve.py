"""Spectra made small enough to keep and to draw: the values at a few hundred ranks."""

import struct
from dataclasses import dataclass
from functools import lru_cache

from torch import Tensor

POINTS = 256


@dataclass(frozen=True, kw_only=True)
class Curve:
    """The spectra of base and adapted matrix at the ranks of `display_ranks(count)`, packed as fp32."""

    count: int
    """how many values each whole spectrum has"""
    base: bytes
    adapted: bytes


def curve(base: Tensor, adapted: Tensor) -> Curve:
    """Both spectra (descending, of equal length) at the ranks worth drawing: at most `POINTS`, so 2 kB in all."""
    count = min(base.numel(), adapted.numel())
    return Curve(count=count, base=_packed(base, count=count), adapted=_packed(adapted, count=count))


@lru_cache(maxsize=256)
def display_ranks(count: int, points: int = POINTS) -> tuple[int, ...]:
    """At most `points` ranks of 1 to `count`, the ends among them; all where there are no more than that.

    Half of them evenly spaced, which shows the bulk; half by equal ratios, which shows the few that stand out.
    """
    if count <= points:
        return tuple(range(1, count + 1))
    even, half = points - points // 2, points // 2
    ranks = {1 + round(i * (count - 1) / (even - 1)) for i in range(even)}
    ratio = count ** (1 / (half - 1))
    return tuple(sorted(ranks | {min(count, round(ratio**i)) for i in range(half)}))


def values_at(packed: bytes, *, digits: int = 4) -> list[float]:
    """The values of one side of a `Curve`, rounded to so many significant digits."""
    return [float(f"{value:.{digits}g}") for value in struct.unpack(f"<{len(packed) // 4}f", packed)]


def thinned(values: list[float], *, count: int, points: int) -> list[float]:
    """Values at `display_ranks(count)` reduced to those at `display_ranks(count, points)`, by the nearest rank."""
    have, wanted = display_ranks(count), display_ranks(count, points)
    if len(wanted) >= len(have):
        return values
    return [values[min(range(len(have)), key=lambda i: abs(have[i] - rank))] for rank in wanted]


def _packed(values: Tensor, *, count: int) -> bytes:
    every: list[float] = values.tolist()
    ranks = display_ranks(count)
    return struct.pack(f"<{len(ranks)}f", *(every[rank - 1] for rank in ranks))
