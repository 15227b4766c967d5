"""The exact k-th largest magnitude of a streamed tensor, without sorting it.

First a guess: the same rank in a sample. Differences of 16-bit weights lie on a coarse grid, so that the guess is often
the very value; a survey that counts the larger and the equal entries proves it, or says by how many ranks it is off for
the next guess. After a few wrong ones two surveys find the value by histograms of bit patterns (the bits of a positive
float order like the float): the upper 15 bits, then the lower 16 of those that share the upper ones.
"""

from math import isfinite

import torch

from worker.methods.base import NotFiniteError, Workspace

LOW_BITS = 16
LOW = 1 << LOW_BITS
HIGH = 1 << 15
CLEAR_SIGN = 0x7FFFFFFF
FIRST_NOT_FINITE = 0x7F80
SAMPLE = 1 << 15
PIECE = 1 << 12
GUESSES = 3


def sample_spans(elements: int) -> list[tuple[int, int]]:
    """Evenly spread spans of about SAMPLE elements in all; one that is everything for a small tensor."""
    if elements <= 2 * SAMPLE:
        return [(0, elements)]
    step = elements / (SAMPLE // PIECE)
    starts = [int(number * step) for number in range(SAMPLE // PIECE)]
    return [(start, min(elements, start + PIECE)) for start in starts]


class Selection:
    """Finds, for one stream of fp32 values, the magnitude of rank `keep` (1 is the largest), exactly.

    When it is `found`, `threshold` is that magnitude, and `equal` the number of entries of just this magnitude that are
    among the `keep` largest.
    """

    def __init__(self, keep: int, *, elements: int, work: Workspace) -> None:
        self.threshold = 0.0
        self.equal = 0
        self.found = False
        self.equals: dict[int, int] = {}
        """entries equal to the threshold by the chunk's start, where they were counted"""
        self._keep = keep
        self._elements = elements
        self._work = work
        self._sample: list[torch.Tensor] = []
        self._guesses = 0
        self._correction = 0.0
        self._larger = 0
        self._high = 0
        self._rank = keep
        self._counts = torch.empty(0, dtype=torch.int64)

    def probe(self, values: torch.Tensor) -> None:
        """One span of the sample."""
        self._sample.append(values.abs())

    def guess(self) -> None:
        """Takes the sample's entry of the same rank for the threshold, corrected by what earlier guesses taught."""
        if self._guesses == 0:
            self._sample = [torch.cat(self._sample)]
        size = len(self._sample[0])
        rank = min(size, max(1, round((self._keep + self._correction) / self._elements * size)))
        self.threshold = torch.kthvalue(self._sample[0], size + 1 - rank).values.item()
        if not isfinite(self.threshold):
            raise NotFiniteError
        self._guesses += 1
        self._larger = 0
        self.equals = {}

    def check(self, values: torch.Tensor, start: int) -> None:
        """One chunk of the survey that proves the guess, or does not."""
        larger, equal = split(values, self.threshold, self._work)
        self.equals[start] = count_equal(equal, self.threshold, self._work)
        ones = larger.sign_()
        count = torch.dot(ones, ones).item()
        if not isfinite(count):
            raise NotFiniteError
        self._larger += int(count)  # exact: below 2^24

    def conclude_check(self) -> None:
        """`found` says whether the guess was right, `hopeless` that no more should be made."""
        self.equal = self._keep - self._larger
        equals = sum(self.equals.values())
        self.found = 0 < self.equal <= equals
        if self.found:
            return
        off = min(0, self.equal - 1) or self.equal - equals
        step = self._elements / len(self._sample[0])
        self._correction += off if abs(off) > step else step * (1 if off > 0 else -1)
        if self.hopeless:
            self.equals = {}

    @property
    def hopeless(self) -> bool:
        """Whether the guesses were all wrong."""
        return not self.found and self._guesses >= GUESSES

    def aim(self, keep: int) -> None:
        """Sets another rank, before the upper bits are concluded."""
        self._keep = self._rank = keep

    def count(self, values: torch.Tensor, *, lower: bool) -> None:
        """One chunk of the survey of the upper bits, or of the lower ones."""
        bits = self._work.take("bits", len(values), torch.int32)
        torch.bitwise_and(values.view(torch.int32), CLEAR_SIGN, out=bits)
        if not len(self._counts):
            self._counts = torch.zeros(HIGH, dtype=torch.int64)
        if lower:  # below the bin: 0; within: 1 to LOW; above: LOW + 1
            bits.sub_((self._high << LOW_BITS) - 1).clamp_(0, LOW + 1)
        else:
            bits.bitwise_right_shift_(LOW_BITS)
        self._counts += torch.bincount(bits, minlength=len(self._counts))

    def conclude_count(self, *, lower: bool) -> None:
        """The upper bits are known, or the threshold. Raises `NotFiniteError`."""
        if not lower:
            if self._counts[FIRST_NOT_FINITE:].any():
                raise NotFiniteError
            self._high, self._rank = _find(self._counts, rank=self._rank)
            self._counts = torch.zeros(LOW + 2, dtype=torch.int64)
            return
        low, self.equal = _find(self._counts[1:-1], rank=self._rank)
        pattern = torch.tensor((self._high << LOW_BITS) + low, dtype=torch.int32)
        self.threshold = pattern.view(torch.float32).item()
        self.found = True
        self._counts = torch.empty(0, dtype=torch.int64)


class Trim:
    """Keeps the largest magnitudes of a stream, as a `Selection` has found them; among equals those that come first."""

    def __init__(self, selection: Selection, work: Workspace) -> None:
        self._threshold = selection.threshold
        self._equals = selection.equals
        self._left = selection.equal
        self._work = work

    def __call__(self, values: torch.Tensor, start: int) -> None:
        """Zeroes the other entries of the stream's next chunk, in place."""
        if self._threshold == 0:  # a zero is a zero, kept or not
            return
        known = self._equals.get(start)
        if self._left == 0:
            shrink(values, self._threshold, out=values)
        elif known is not None and known <= self._left:
            shrink(values, below(self._threshold), out=values)
            self._left -= known
        else:
            place, self._left = self._end_of_equals(values)
            shrink(values[:place], below(self._threshold), out=values[:place])
            shrink(values[place:], self._threshold, out=values[place:])

    def _end_of_equals(self, values: torch.Tensor) -> tuple[int, int]:
        """Where the equals end that are kept, and how many are kept after this chunk; by halving."""
        _, equal = split(values, self._threshold, self._work)
        count = count_equal(equal, self._threshold, self._work)
        if count <= self._left:
            return len(values), self._left - count
        start, stop, left = 0, len(values), self._left
        while stop - start > PIECE:
            middle = (start + stop) // 2
            count = count_equal(equal[start:middle], self._threshold, self._work)
            start, stop, left = (middle, stop, left - count) if count < left else (start, middle, left)
        return start + int(torch.nonzero(equal[start:stop])[left - 1]) + 1, 0


def split(values: torch.Tensor, threshold: float, work: Workspace) -> tuple[torch.Tensor, torch.Tensor]:
    """The entries beyond ± the threshold, and those that equal it; zero elsewhere. Two buffers."""
    larger = shrink(values, threshold, out=work.take("larger", len(values)))
    equal = shrink(values, below(threshold), out=work.take("equal", len(values)))
    return larger, equal.sub_(larger)


def count_equal(equals: torch.Tensor, threshold: float, work: Workspace) -> int:
    """How many entries are not zero, all of them being ± the threshold: their sum tells, without comparisons.

    Raises `NotFiniteError`.
    """
    if threshold == 0:
        return len(equals)
    total = torch.abs(equals, out=work.take("abs", len(equals))).sum().item()
    if not isfinite(total):  # infinity less infinity
        raise NotFiniteError
    return round(total / threshold)


def below(threshold: float) -> float:
    """The next smaller fp32 number."""
    return torch.nextafter(torch.tensor(threshold), torch.tensor(-1.0)).item()


def shrink(values: torch.Tensor, limit: float, *, out: torch.Tensor) -> torch.Tensor:
    """`values` where their magnitude is beyond `limit`, else 0: one vectorised pass, where a mask takes three slow."""
    return torch.ops.aten.hardshrink.out(values, limit, out=out)  # type: ignore[no-any-return]


def _find(counts: torch.Tensor, *, rank: int) -> tuple[int, int]:
    """The bin that holds the entry of this rank, counted from the last bin, and the rank within it."""
    reached = counts.flip(0).cumsum(0)
    place = int(torch.searchsorted(reached, rank))
    before = int(reached[place - 1]) if place else 0
    return len(counts) - 1 - place, rank - before
