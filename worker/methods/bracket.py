"""Two bit patterns between which a rank is looked for, and what a survey finds there.

Entries of just the two outer patterns are counted, not kept: differences of 16-bit weights repeat, a tenth of a tensor
may be of one magnitude, and such a magnitude has one end of the bracket or both. What is kept lies strictly between.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

BINS = 1 << 21
PENDING = 1 << 21
"""entries between the ends that are kept before they go into a histogram: 8 MiB"""


class Found(NamedTuple):
    """Of some entries: how many are above the bracket, of its highest pattern, of its lowest; and those between, as
    patterns less `low` + 1. Where both ends are the same pattern, `lowest` says nothing."""

    above: int
    highest: int
    lowest: int
    between: NDArray[np.int32]


@dataclass
class Bracket:
    """Bit patterns `low` to `high`, both included, and what a survey has found so far.

    What is between is kept; where it becomes too much, it is counted in bins, of more than one pattern if need be.
    """

    low: int
    high: int
    above: int = 0
    highest: int = 0
    lowest: int = 0
    between: int = 0
    _counts: NDArray[np.int64] | None = None
    _pending: list[NDArray[np.int32]] = field(default_factory=list)
    _size: int = 0

    def __post_init__(self) -> None:
        self._shift = max(0, (self.high - self.low).bit_length() - BINS.bit_length() + 1)

    def add(self, found: Found) -> None:
        """What the next entries of the survey are."""
        self.above += found.above
        self.highest += found.highest
        if self.low == self.high:
            return
        self.lowest += found.lowest
        self.between += len(found.between)
        if len(found.between):
            self._pending.append(found.between)
            self._size += len(found.between)
        if self._size > PENDING:
            self._flush()

    @property
    def within(self) -> int:
        """Entries from `low` to `high`."""
        return self.highest + self.between + self.lowest

    def find(self, rank: int) -> tuple[int, int, int]:
        """The first and the last pattern between which the entry of this rank is, and its rank among these.

        Ranks count from the highest entry within the bracket, which is 1, to `within`.
        """
        if rank <= self.highest:
            return self.high, self.high, rank
        rank -= self.highest
        if rank > self.between:
            return self.low, self.low, rank - self.between
        first = self.low + 1
        if self._counts is None:
            offsets = np.concatenate(self._pending)
            place = int(np.partition(offsets, len(offsets) - rank)[len(offsets) - rank])
            return first + place, first + place, rank - int(np.count_nonzero(offsets > place))
        self._flush()
        place, left = find_rank(torch.from_numpy(self._counts), rank=rank)
        start = first + (place << self._shift)
        return start, min(self.high - 1, start + (1 << self._shift) - 1), left

    def _flush(self) -> None:
        if self._counts is None:
            self._counts = np.zeros(((self.high - self.low) >> self._shift) + 1, dtype=np.int64)
        if self._pending:
            offsets = np.concatenate(self._pending)
            self._counts += np.bincount(offsets >> self._shift, minlength=len(self._counts))
            self._pending, self._size = [], 0


def sorted_out(offsets: NDArray[np.int32], *, span: int, above: int) -> Found:
    """What is found where all entries from `low` to `high` = `low` + `span` were collected, as patterns less `low`."""
    inner = offsets[(offsets > 0) & (offsets < span)]
    return Found(above, int(np.count_nonzero(offsets == span)), int(np.count_nonzero(offsets == 0)), inner - 1)


def find_rank(counts: torch.Tensor, *, rank: int) -> tuple[int, int]:
    """The bin that holds the entry of this rank, counted from the last bin, and the rank within it."""
    reached = counts.flip(0).cumsum(0)
    place = int(torch.searchsorted(reached, rank))
    before = int(reached[place - 1]) if place else 0
    return len(counts) - 1 - place, rank - before
