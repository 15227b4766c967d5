"""What the compiled loops are to do with one tensor."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

BLOCK = 2048
"""elements that are computed together, in the first cache"""
LANES = 32
"""sums of each inner product"""
VECTOR = 16
"""elements that a survey of ranks looks at together"""
KEEP_ALL = 1 << 15
"""a limit that keeps every entry"""
PLAIN, PAIRED, POSITIVE, SIGNED = 0, 1, 2, 3
"""how an elected sum is divided: not; halved where both count; by a sum of weights, none or some below zero"""


@dataclass
class Thinning:
    """How δ become δ̂, per expert: by a threshold (0: none), of whose equals the first `equal` are kept, and by random
    masks, each (key, limit of 15 bits). It counts the equals on its way from the first chunk to the last."""

    thresholds: Sequence[float]
    equal: Sequence[int]
    masks: Sequence[Sequence[tuple[int, int]]]

    def __post_init__(self) -> None:
        count, levels = len(self.thresholds), max([1, *map(len, self.masks)])
        thresholds = np.array(self.thresholds, dtype=np.float32)
        left = np.array(self.equal, dtype=np.int64)
        keys = np.zeros((count, levels), dtype=np.uint64)
        limits = np.full((count, levels), KEEP_ALL, dtype=np.int64)
        for expert, pairs in enumerate(self.masks):
            for level, (key, limit) in enumerate(pairs):
                keys[expert, level], limits[expert, level] = key, limit
        self.arrays = (thresholds, left, keys, limits)


@dataclass(frozen=True)
class Mix:
    """What becomes of the δ̂: `factors` times them (after the election where they are `alike`), elected or not, over the
    weights that count where they are `divided`, times `scale`."""

    factors: Sequence[float]
    weights: Sequence[float]
    scale: float
    elects: bool = False
    alike: bool = False
    divided: bool = False
    paired: bool = False

    @cached_property
    def arrays(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return np.array(self.factors, dtype=np.float32), np.array(self.weights, dtype=np.float32)

    @property
    def how(self) -> int:
        if not self.divided:
            return PLAIN
        if self.paired:
            return PAIRED
        return POSITIVE if min(self.weights) >= 0 else SIGNED
