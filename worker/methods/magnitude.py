"""The exact k-th largest magnitude of a streamed tensor, by histograms of bit patterns instead of sorting.

The bits of a positive float order like the float, so its 31 bits are searched in two surveys: the upper 15, then the
lower 16 of those that share the upper ones.
"""

import torch

from worker.methods.base import NotFiniteError, Workspace

LOW_BITS = 16
LOW = 1 << LOW_BITS
HIGH = 1 << 15
CLEAR_SIGN = 0x7FFFFFFF
FIRST_NOT_FINITE = 0x7F80


class Selection:
    """Finds, for one stream of fp32 values, the magnitude of rank `keep` (1 is the largest), exactly.

    When both surveys are concluded, `threshold` is that magnitude, and `equal` the number of entries of just this
    magnitude that are among the `keep` largest.
    """

    def __init__(self, keep: int, work: Workspace) -> None:
        self.threshold = 0.0
        self.equal = 0
        self._rank = keep
        self._work = work
        self._high = 0
        self._counts = torch.zeros(HIGH, dtype=torch.int64)

    def count(self, values: torch.Tensor, *, turn: int) -> None:
        """One chunk of survey 0 or 1."""
        bits = self._work.take("bits", len(values), torch.int32)
        torch.bitwise_and(values.view(torch.int32), CLEAR_SIGN, out=bits)
        if turn == 0:
            bits.bitwise_right_shift_(LOW_BITS)
        else:  # below the bin: 0; within: 1 to LOW; above: LOW + 1
            bits.sub_((self._high << LOW_BITS) - 1).clamp_(0, LOW + 1)
        self._counts += torch.bincount(bits, minlength=len(self._counts))

    def conclude(self, *, turn: int) -> None:
        """After survey 0 the upper bits are known, after survey 1 the threshold. Raises `NotFiniteError`."""
        if turn == 0:
            if self._counts[FIRST_NOT_FINITE:].any():
                raise NotFiniteError
            self._high, self._rank = _find(self._counts, rank=self._rank)
            self._counts = torch.zeros(LOW + 2, dtype=torch.int64)
        else:
            low, self.equal = _find(self._counts[1:-1], rank=self._rank)
            pattern = torch.tensor((self._high << LOW_BITS) + low, dtype=torch.int32)
            self.threshold = pattern.view(torch.float32).item()
            self._counts = self._counts[:0].clone()


def _find(counts: torch.Tensor, *, rank: int) -> tuple[int, int]:
    """The bin that holds the entry of this rank, counted from the last bin, and the rank within it."""
    reached = counts.flip(0).cumsum(0)
    place = int(torch.searchsorted(reached, rank))
    before = int(reached[place - 1]) if place else 0
    return len(counts) - 1 - place, rank - before


class Trim:
    """Keeps the largest magnitudes of a stream, as a `Selection` has found them; among equals those that come first."""

    def __init__(self, selection: Selection, work: Workspace) -> None:
        self._threshold = selection.threshold
        self._below = torch.nextafter(torch.tensor(selection.threshold), torch.tensor(0.0)).item()
        self._left = selection.equal
        self._work = work

    def __call__(self, values: torch.Tensor) -> None:
        """Zeroes the other entries of the stream's next chunk, in place."""
        if self._threshold == 0:  # a zero is a zero, kept or not
            return
        if not self._left:
            torch.ops.aten.hardshrink.out(values, self._threshold, out=values)
            return
        larger = torch.ops.aten.hardshrink.out(values, self._threshold, out=self._work.take("larger", len(values)))
        torch.ops.aten.hardshrink.out(values, self._below, out=values)
        equal = self._count(torch.sub(values, larger, out=larger))
        if equal > self._left:
            places = torch.nonzero(larger).view(-1)
            values[places[self._left :]] = 0
        self._left = max(0, self._left - equal)

    def _count(self, equals: torch.Tensor) -> int:
        """How many entries are not zero, all of them being ± the threshold: their sum tells, without comparisons."""
        return round(torch.abs(equals, out=self._work.take("abs", len(equals))).sum().item() / self._threshold)
