"""Random bits that depend on nothing but a key and a position: any part of a tensor's mask can be made anywhere, again.

SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014) used as a counter-based
generator: word i is mix(key + (i + 1) · golden ratio). Each 64-bit word serves four elements with 16 bits each.
"""

from functools import lru_cache
from hashlib import sha256

import numpy as np
import torch
from numpy.typing import NDArray

from worker.methods.base import Workspace
from worker.methods.patterns import mixed_words

Words = NDArray[np.uint64]

GOLDEN = 0x9E3779B97F4A7C15
MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
LAST_SHIFT = 31
BLOCK = 1 << 13
"""Words that are mixed together: 64 KiB"""
LANES = 4
RESOLUTION = 15
"""bits of a probability: 1/32768 is the smallest step"""
RARE = 1 / 128
"""Probabilities below this are products of it and the rest, of independent bits: so they keep eight binary digits."""


def key_of(*parts: object) -> int:
    """A 64-bit key of everything that the bits shall depend on."""
    return int.from_bytes(sha256("\0".join(map(str, parts)).encode()).digest()[:8], "little")


def keep_mask(key: int, *, start: int, size: int, density: float, work: Workspace) -> torch.Tensor:
    """int16 of `size`: -1 (all bits set) with probability `density`, else 0, for elements from `start` on."""
    if 0 < density < RARE:
        rest = keep_mask(key_of(key, "rest"), start=start, size=size, density=density / RARE, work=work)
        rest = work.take("mask.rest", size, torch.int16).copy_(rest)
        return keep_mask(key, start=start, size=size, density=RARE, work=work).bitwise_and_(rest)
    bits = random_bits(key, start=start, size=size, work=work)
    # 15 random bits less the threshold never overflow; the sign, smeared over the word, is the mask
    return bits.sub_(round(density * (1 << RESOLUTION))).bitwise_right_shift_(RESOLUTION)


def mask_levels(key: int, density: float) -> list[tuple[int, int]]:
    """The streams of which `keep_mask` is made, each with the limit below which its 15 bits keep an entry."""
    if 0 < density < RARE:
        return [*mask_levels(key, RARE), *mask_levels(key_of(key, "rest"), density / RARE)]
    return [(key, round(density * (1 << RESOLUTION)))]


def random_bits(key: int, *, start: int, size: int, work: Workspace) -> torch.Tensor:
    """int16 of `size`, uniform in 0 to 2^15 - 1, for elements from `start` on."""
    first = start // LANES
    words = random_words(key, start=first, size=-(-(start + size) // LANES) - first, work=work)
    return words.view(torch.int16)[start - first * LANES :][:size].bitwise_and_((1 << RESOLUTION) - 1)


def random_words(key: int, *, start: int, size: int, work: Workspace) -> torch.Tensor:
    """int64 of `size`: words `start` onwards of the stream `key`.

    By numpy's unsigned integers, which shift zeros in, in blocks that stay in the first two caches.
    """
    if work.device.type != "cpu":
        return mixed_words(key, start=start, size=size, device=work.device)
    words = work.take("words", size, torch.int64)
    shifted = work.take("words.shifted", BLOCK, torch.int64).numpy().view(np.uint64)
    all_words, steps = words.numpy().view(np.uint64), _weyl(BLOCK)
    for at in range(0, size, BLOCK):
        block = all_words[at : at + BLOCK]
        np.add(steps[: len(block)], np.uint64((key + (start + at + 1) * GOLDEN) % (1 << 64)), out=block)
        _mix(block, shifted[: len(block)])
    return words


def _mix(words: Words, buffer: Words) -> None:
    for shift, factor in MIX:
        np.right_shift(words, np.uint64(shift), out=buffer)
        np.bitwise_xor(words, buffer, out=words)
        np.multiply(words, np.uint64(factor), out=words)
    np.right_shift(words, np.uint64(LAST_SHIFT), out=buffer)
    np.bitwise_xor(words, buffer, out=words)


@lru_cache(maxsize=1)
def _weyl(size: int) -> Words:
    """0, 1, 2, … times the golden ratio, modulo 2^64."""
    return np.arange(size, dtype=np.uint64) * np.uint64(GOLDEN)
