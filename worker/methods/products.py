"""Inner products of two streams, in fp64."""

from math import sqrt

import numpy as np
import torch

from worker.methods.base import Workspace

SLICE = 1 << 15
"""Elements widened to fp64 at once: two slices fit the second cache."""


class Products:
    """‖x‖², ‖y‖² and x·y of two tensors seen chunk by chunk. Products of fp32 numbers are exact in fp64.

    The compiled loops, where they are loaded, add up in another order than torch: the sums agree to 15 digits.
    """

    def __init__(self, work: Workspace) -> None:
        self._work = work
        self._sums = np.zeros(3)

    def add(self, one: torch.Tensor, other: torch.Tensor) -> None:
        """The next chunk of both, 1-D of one length."""
        if self._work.loaded and self._work.loaded.knows(one, other):
            self._work.loaded.products(one, other, self._sums)
            return
        size = SLICE if one.device.type == "cpu" else max(1, len(one))
        for start in range(0, len(one), size):
            left = self._work.load("products.one", one[start : start + size], torch.float64)
            right = self._work.load("products.other", other[start : start + size], torch.float64)
            for number, pair in enumerate(((left, left), (right, right), (left, right))):
                self._sums[number] += torch.dot(*pair).item()

    @property
    def norms(self) -> tuple[float, float]:
        """‖x‖ and ‖y‖."""
        return sqrt(self._sums[0]), sqrt(self._sums[1])

    @property
    def dot(self) -> float:
        """x·y."""
        return float(self._sums[2])
