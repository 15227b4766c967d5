"""Bit patterns of tensors on any device, by torch alone: what the methods do with numpy's views on the CPU.

Integer arithmetic, so the results are the same bits everywhere: random words, brackets of magnitudes, places of equals.
"""

import torch

CLEAR_SIGN = 0x7FFFFFFF
LARGEST = 0x7F7FFFFF
"""the bits of the largest finite magnitude"""
GOLDEN = 0x9E3779B97F4A7C15
MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
LAST_SHIFT = 31


def mixed_words(key: int, *, start: int, size: int, device: torch.device) -> torch.Tensor:
    """int64 of `size`: words `start` onwards of the SplitMix64 stream `key` (Steele, Lea, Flood, OOPSLA 2014).

    Not every device has unsigned 64-bit integers; sums and products modulo 2^64 are the same for signed ones.
    """
    words = torch.arange(size, dtype=torch.int64, device=device).mul_(_signed(GOLDEN))
    words.add_(_signed(key + (start + 1) * GOLDEN))
    for shift, factor in MIX:
        words.bitwise_xor_(_shifted(words, shift)).mul_(_signed(factor))
    return words.bitwise_xor_(_shifted(words, LAST_SHIFT))


def magnitudes(values: torch.Tensor) -> torch.Tensor:
    """int32: the patterns of |values| (fp32), which order like them."""
    return values.view(torch.int32).bitwise_and(CLEAR_SIGN)


def bracketed(values: torch.Tensor, *, low: int, high: int) -> tuple[bool, int, torch.Tensor]:
    """Of fp32 values: whether all are finite, how many magnitudes have a pattern above `high`, and those from `low` to
    `high`, less `low`, in order (int32, in host memory)."""
    bits = magnitudes(values)
    above = int((bits > high).sum())
    within = bits[(bits >= low) & (bits <= high)].sub_(low)
    finite = above == 0 or int(bits.max()) <= LARGEST
    return finite, above, within.cpu()


def equals(values: torch.Tensor, magnitude: float) -> torch.Tensor:
    """int64, in host memory: the places of the entries of just this magnitude, in order."""
    pattern = torch.tensor(magnitude, dtype=torch.float32, device="cpu").view(torch.int32).item()
    return (magnitudes(values) == pattern).nonzero().view(-1).cpu()


def _shifted(words: torch.Tensor, count: int) -> torch.Tensor:
    """Shifted to the right with zeros coming in, where torch would repeat the sign."""
    return words.bitwise_right_shift(count).bitwise_and_((1 << (64 - count)) - 1)


def _signed(number: int) -> int:
    """The signed 64-bit integer of the same bits."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)
