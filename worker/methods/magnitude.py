"""The exact k-th largest magnitude of a streamed tensor, without sorting it.

The bits of a positive float order like the float. A sample brackets the rank: the bounds are so far apart that the
entry lies between them but for a few tensors in a thousand. One survey counts what is above the bracket and at its
ends, and collects what is between, one or two percent: that gives the value and how many of its equals are kept. Where
the sample misled, or what is between is too much for a histogram of single patterns, another survey looks into the
bracket that the first has left. The sample only decides how long it takes, never the result.
"""

from math import sqrt

import numpy as np
import torch
from numpy.typing import NDArray

from worker.methods.base import NotFiniteError, Workspace
from worker.methods.bracket import Bracket, find_rank, sorted_out
from worker.methods.patterns import bracketed, equals, magnitudes

LOW_BITS = 16
LOW = 1 << LOW_BITS
HIGH = 1 << 15
CLEAR_SIGN = 0x7FFFFFFF
FIRST_NOT_FINITE = 0x7F80
LARGEST = 0x7F7FFFFF
"""the bits of the largest finite magnitude"""
SAMPLE = 1 << 17
"""elements at the most; else one of 256, but a quarter of this at the least"""
PIECE = 1 << 9
"""elements of one span of the sample: few, so that it sees many rows"""
CERTAIN = 3.5
"""standard errors on either side of the sample's rank"""
WIDER = 4.0
"""how many times as far the next bracket reaches where one did not hold the rank"""
GOLDEN = 0.6180339887498949


def sample_spans(elements: int) -> list[tuple[int, int]]:
    """Spread spans of PIECE elements, SAMPLE in all at the most; one that is everything for a small tensor.

    Each lies somewhere in its part of the tensor, at places that follow no row's length: multiples of the golden ratio.
    """
    if elements <= SAMPLE:
        return [(0, elements)]
    count = min(SAMPLE, max(SAMPLE // 4, elements // 256)) // PIECE
    step = elements / count
    starts = [int(number * step + (number * GOLDEN) % 1 * (step - PIECE)) for number in range(count)]
    return [(start, start + PIECE) for start in starts]


class Selection:
    """Finds, for one stream of fp32 values, the magnitude of rank `keep` (1 is the largest), exactly.

    When it is `found`, `threshold` is that magnitude, and `equal` the number of entries of just this magnitude that are
    among the `keep` largest. Either by `probe`, `guess` and then `check` and `conclude_check` until it is found, or by
    `count` and `conclude_count`, twice, where there is no sample.
    """

    def __init__(self, keep: int, *, elements: int, work: Workspace) -> None:
        self.threshold = 0.0
        self.equal = 0
        self.found = False
        self._keep = keep
        self._elements = elements
        self._work = work
        self._sample: list[torch.Tensor] = []
        self._sampled = np.empty(0, dtype=np.int32)
        self._apart = 0.0
        self.bracket = Bracket(0, 0)
        self._high = 0
        self._rank = keep
        self._counts = torch.empty(0, dtype=torch.int64)

    def probe(self, values: torch.Tensor) -> None:
        """One or several spans of the sample, one behind the other."""
        self._sample.append(magnitudes(values))

    def guess(self) -> None:
        """Brackets the rank by the sample. Raises `NotFiniteError`."""
        self._sampled, self._sample = torch.cat(self._sample).cpu().numpy(), []
        size = len(self._sampled)
        if int(self._sampled.max()) > LARGEST:
            raise NotFiniteError
        self._apart = 0.0 if size == self._elements else CERTAIN * self._doubt() * size + 1
        self.bracket = Bracket(self._lower(), self._upper())

    def check(self, values: torch.Tensor) -> None:
        """One chunk of a survey. Raises `NotFiniteError`."""
        bracket = self.bracket
        span = bracket.high - bracket.low
        if self._work.device.type != "cpu":
            finite, above, offsets = bracketed(values, low=bracket.low, high=bracket.high)
            if not finite:
                raise NotFiniteError
            bracket.add(sorted_out(offsets.numpy(), span=span, above=above))
            return
        bits = self._work.take("bits", len(values), torch.int32).numpy()
        mask = self._work.take("bits.mask", len(values), torch.bool).numpy()
        np.bitwise_and(values.view(torch.int32).numpy(), np.int32(CLEAR_SIGN), out=bits)
        if int(bits.max()) > LARGEST:
            raise NotFiniteError
        np.subtract(bits, np.int32(bracket.low), out=bits)
        above = int(np.count_nonzero(np.greater(bits, np.int32(span), out=mask)))
        # what is below the bracket is negative, as an unsigned integer very large
        np.less_equal(bits.view(np.uint32), np.uint32(span), out=mask)
        bracket.add(sorted_out(np.compress(mask, bits), span=span, above=above))

    def conclude_check(self) -> None:
        """The threshold is `found`, or the bracket is another for the next survey."""
        bracket = self.bracket
        rank = self._keep - bracket.above
        if not 1 <= rank <= bracket.within:
            self.bracket = self._missed(bracket, upwards=rank < 1)
            return
        low, high, self.equal = bracket.find(rank)
        self.found = low == high
        self.bracket = Bracket(low, high)
        self.threshold = torch.tensor(low, dtype=torch.int32).view(torch.float32).item()

    def _missed(self, bracket: Bracket, *, upwards: bool) -> Bracket:
        """The one beside it, which reaches further than the sample seemed to allow."""
        far = bracket.high if upwards else bracket.low
        while bracket.low <= far <= bracket.high:
            self._apart = WIDER * max(self._apart, 1.0)
            far = self._upper() if upwards else self._lower()
        return Bracket(bracket.high + 1, far) if upwards else Bracket(far, bracket.low - 1)

    def _lower(self) -> int:
        return _pattern(self._sampled, self._expected + self._apart, beyond=0)

    def _upper(self) -> int:
        return _pattern(self._sampled, self._expected - self._apart, beyond=LARGEST)

    @property
    def _expected(self) -> float:
        """The rank that the sample should have it at."""
        return self._keep / self._elements * len(self._sampled)

    def _doubt(self) -> float:
        """The standard error of a share in the sample: of independent entries, or of spans where these differ more."""
        share, sample = self._keep / self._elements, self._sampled
        middle = _pattern(sample, min(len(sample), max(1, round(share * len(sample)))), beyond=0)
        spans = sample[: len(sample) // PIECE * PIECE].reshape(-1, PIECE)
        shares = np.count_nonzero(spans > middle, axis=1) / PIECE
        spread = float(shares.std(ddof=1)) / sqrt(len(shares)) if len(shares) > 1 else 0.0
        return max(sqrt(share * (1 - share) / len(sample)), spread)

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
            self._high, self._rank = find_rank(self._counts, rank=self._rank)
            self._counts = torch.zeros(LOW + 2, dtype=torch.int64)
            return
        low, self.equal = find_rank(self._counts[1:-1], rank=self._rank)
        pattern = torch.tensor((self._high << LOW_BITS) + low, dtype=torch.int32)
        self.threshold = pattern.view(torch.float32).item()
        self.found = True
        self._counts = torch.empty(0, dtype=torch.int64)


class Trim:
    """Keeps the largest magnitudes of a stream, as a `Selection` has found them; among equals those that come first."""

    def __init__(self, selection: Selection, work: Workspace) -> None:
        self._threshold = selection.threshold
        self._left = selection.equal
        self._work = work

    def __call__(self, values: torch.Tensor, start: int) -> None:  # noqa: ARG002  (chunks come in order)
        """Zeroes the other entries of the stream's next chunk, in place. Raises `NotFiniteError`."""
        if self._threshold == 0:  # a zero is a zero, kept or not
            return
        place = self._end_of_equals(values) if self._left else 0
        if place:
            shrink(values[:place], below(self._threshold), out=values[:place])
        if place < len(values):
            shrink(values[place:], self._threshold, out=values[place:])

    def _end_of_equals(self, values: torch.Tensor) -> int:
        """Where the equals end that are kept; counts them."""
        if self._work.device.type != "cpu":
            places = equals(values, self._threshold)
            if len(places) <= self._left:
                self._left -= len(places)
                return len(values)
            place, self._left = int(places[self._left - 1]) + 1, 0
            return place
        bits = self._work.take("bits", len(values), torch.int32).numpy()
        mask = self._work.take("bits.mask", len(values), torch.bool).numpy()
        np.bitwise_and(values.view(torch.int32).numpy(), np.int32(CLEAR_SIGN), out=bits)
        np.equal(bits, np.float32(self._threshold).view(np.int32), out=mask)
        count = int(np.count_nonzero(mask))
        if count <= self._left:
            self._left -= count
            return len(values)
        place, self._left = int(np.flatnonzero(mask)[self._left - 1]) + 1, 0
        return place


def below(threshold: float) -> float:
    """The next smaller fp32 number."""
    return torch.nextafter(torch.tensor(threshold), torch.tensor(-1.0)).item()


def shrink(values: torch.Tensor, limit: float, *, out: torch.Tensor) -> torch.Tensor:
    """`values` where their magnitude is beyond `limit`, else 0: one vectorised pass, where a mask takes three slow."""
    return torch.ops.aten.hardshrink.out(values, limit, out=out)  # type: ignore[no-any-return]


def _pattern(sample: NDArray[np.int32], rank: float, *, beyond: int) -> int:
    """The sample's pattern of this rank from the top; `beyond` where it has none."""
    place = len(sample) - round(rank)
    return int(np.partition(sample, place)[place]) if 0 <= place < len(sample) else beyond
