"""The compiled loops as the methods see them: torch tensors in and out, buffers made once."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from worker.methods.base import Chunk, NotFiniteError
from worker.methods.fused import loops
from worker.methods.fused.plan import Mix, Thinning

KINDS = {torch.bfloat16: loops.BF16, torch.float16: loops.F16, torch.float32: loops.F32}
LARGEST = 0x7F7FFFFF
"""the bits of the largest finite magnitude"""


class Engine:
    """The loops and their buffers."""

    def __init__(self) -> None:
        self._words = np.empty(loops.BLOCK // 2, dtype=np.uint64)
        self._rows: dict[int, NDArray[np.float32]] = {}
        self._found = np.empty((0, 0), dtype=np.int32)
        self._load()

    def _load(self) -> None:
        """Compiles the loops, or loads them from the disk: a third of a second or more, before a merge begins."""
        nothing = torch.zeros(1)
        chunk, thinning = Chunk(0, 1, nothing, (nothing,)), Thinning([0], [0], [()])
        self.merge(chunk, nothing.clone(), thinning, Mix([1.0], [1.0], 1.0))
        self.norms(chunk, thinning, np.zeros((1, 2)))
        self.rank(chunk, [(0, 0, 1)])

    @staticmethod
    def takes(chunk: Chunk, out: torch.dtype = torch.float32) -> bool:
        """Whether a chunk can be merged here: on the CPU, in dtypes that the loops know."""
        models = (chunk.base, *chunk.experts)
        return out in KINDS and all(model.dtype in KINDS and model.device.type == "cpu" for model in models)

    def merge(self, chunk: Chunk, out: torch.Tensor, thinning: Thinning, mix: Mix) -> bool:
        """The merged chunk into `out`; whether all task vectors are finite."""
        addresses, kinds = _places(chunk.base, *chunk.experts, out)
        largest = loops.merge(
            len(chunk), chunk.start, addresses, kinds, self._blocks(chunk), self._words, *thinning.arrays, *mix.arrays,
            mix.elects, mix.how, mix.alike, mix.scale,
        )  # fmt: skip
        return bool(largest <= LARGEST)

    def norms(self, chunk: Chunk, thinning: Thinning, sums: NDArray[np.float64]) -> None:
        """Adds the magnitudes of δ and δ̂ to the sums, (experts, 2)."""
        addresses, kinds = _places(chunk.base, *chunk.experts)
        loops.norms(
            len(chunk), chunk.start, addresses, kinds, self._blocks(chunk), self._words, *thinning.arrays, sums
        )

    def rank(
        self, chunk: Chunk, brackets: Sequence[tuple[int, int, int]]
    ) -> list[tuple[int, int, NDArray[np.int32]]]:
        """Brackets (expert, lowest pattern, highest pattern), those of one expert together: for each, how many
        magnitudes are above it, how many within, and these less the lowest, unless the bracket is a single pattern.

        Raises `NotFiniteError`.
        """
        addresses, kinds = _places(chunk.base, *chunk.experts)
        wanted, low, high = (np.array(column, dtype=np.int64) for column in zip(*brackets, strict=True))
        counts = np.zeros((len(brackets), 2), dtype=np.int64)
        if self._found.shape[0] < len(brackets) or self._found.shape[1] <= len(chunk):
            self._found = np.empty((len(brackets), len(chunk) + 1), dtype=np.int32)
        largest = loops.rank(
            len(chunk), addresses, kinds, self._blocks(chunk), wanted, low, high - low, self._found, counts
        )
        if largest > LARGEST:
            raise NotFiniteError
        return [
            (int(above), int(within), self._found[number, : within if low[number] < high[number] else 0].copy())
            for number, (above, within) in enumerate(counts)
        ]

    def _blocks(self, chunk: Chunk) -> NDArray[np.float32]:
        count = len(chunk.experts)
        if count not in self._rows:
            self._rows[count] = np.empty((count + 3, loops.BLOCK), dtype=np.float32)
        return self._rows[count]


def _places(*tensors: torch.Tensor) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    return (
        np.array([tensor.data_ptr() for tensor in tensors], dtype=np.uint64),
        np.array([KINDS[tensor.dtype] for tensor in tensors], dtype=np.int64),
    )
