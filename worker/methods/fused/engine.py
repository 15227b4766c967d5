"""The compiled loops as the methods see them: torch tensors in and out, buffers made once."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from worker.compiled import call
from worker.methods.base import Chunk, NotFiniteError
from worker.methods.bracket import Found
from worker.methods.fused import loops
from worker.methods.fused.plan import BLOCK, VECTOR, Mix, Thinning

KINDS = {torch.bfloat16: loops.BF16, torch.float16: loops.F16, torch.float32: loops.F32}
LARGEST = 0x7F7FFFFF
"""the bits of the largest finite magnitude"""


class Engine:
    """The loops and their buffers."""

    def __init__(self) -> None:
        self._words = np.empty(BLOCK // 2, dtype=np.uint64)
        self._rows: dict[int, NDArray[np.float32]] = {}
        self._found = np.empty((0, 0), dtype=np.int32)

    def load_blends(self) -> None:
        """Compiles the loops of inner products and weighted sums, or loads them from the disk."""
        nothing = torch.zeros(1)
        self.products(nothing, nothing, np.zeros(3))
        self.blend([nothing, nothing], [0.5, 0.5], nothing.clone(), lerp=True)

    def load_task_vectors(self) -> None:
        """Compiles those of task vectors, or loads them: a third of a second or more, before a merge begins."""
        nothing = torch.zeros(1)
        chunk, thinning = Chunk(0, 1, nothing, (nothing,)), Thinning([0], [0], [()])
        self.merge(chunk, nothing.clone(), thinning, Mix([1.0], [1.0], 1.0))
        self.norms(chunk, thinning, np.zeros((1, 2)))
        self.rank(chunk, [(0, 0, 1)])

    @staticmethod
    def takes(chunk: Chunk, out: torch.dtype = torch.float32) -> bool:
        """Whether a chunk can be merged here: on the CPU, in dtypes that the loops know."""
        return out in KINDS and Engine.knows(chunk.base, *chunk.experts)

    @staticmethod
    def knows(*models: torch.Tensor) -> bool:
        """Whether the loops know the tensors' dtypes and place, and find one element behind the other."""
        return all(each.dtype in KINDS and each.device.type == "cpu" and each.is_contiguous() for each in models)

    def products(self, one: torch.Tensor, other: torch.Tensor, sums: NDArray[np.float64]) -> None:
        """Adds the inner products of one with itself, of the other with itself, and of both to the three `sums`."""
        addresses, kinds = _places(one, other)
        call(loops.products, len(one), addresses, kinds, self._blocks(1), self._words.view(np.float64), sums)

    def blend(
        self, parts: Sequence[torch.Tensor], factors: Sequence[float], out: torch.Tensor, *, lerp: bool
    ) -> None:
        """`out = Σ factors[i] · parts[i]`, or, where `lerp` is set, the point between two parts at `factors[1]`."""
        addresses, kinds = _places(*parts, out)
        call(loops.blend, len(out), addresses, kinds, self._blocks(1), np.array(factors, dtype=np.float32), lerp)

    def merge(self, chunk: Chunk, out: torch.Tensor, thinning: Thinning, mix: Mix) -> bool:
        """The merged chunk into `out`; whether all task vectors are finite."""
        addresses, kinds = _places(chunk.base, *chunk.experts, out)
        rows = self._blocks(len(chunk.experts))
        largest = call(
            loops.merge, len(chunk), chunk.start, addresses, kinds, rows, self._words, *thinning.arrays, *mix.arrays,
            mix.elects, mix.how, mix.alike, mix.scale,
        )  # fmt: skip
        return bool(largest <= LARGEST)

    def norms(self, chunk: Chunk, thinning: Thinning, sums: NDArray[np.float64]) -> None:
        """Adds the magnitudes of δ and δ̂ to the sums, (experts, 2)."""
        addresses, kinds = _places(chunk.base, *chunk.experts)
        rows = self._blocks(len(chunk.experts))
        call(loops.norms, len(chunk), chunk.start, addresses, kinds, rows, self._words, *thinning.arrays, sums)

    def rank(self, chunk: Chunk, brackets: Sequence[tuple[int, int, int]]) -> list[Found]:
        """What is found in the brackets (expert, lowest pattern, highest pattern), those of one expert together.

        Raises `NotFiniteError`.
        """
        addresses, kinds = _places(chunk.base, *chunk.experts)
        wanted, low, high = (np.array(column, dtype=np.int64) for column in zip(*brackets, strict=True))
        counts = np.zeros((len(brackets), 4), dtype=np.int64)
        if self._found.shape[0] < len(brackets) or self._found.shape[1] < len(chunk) + VECTOR:
            self._found = np.empty((len(brackets), len(chunk) + VECTOR), dtype=np.int32)
        rows = self._blocks(len(chunk.experts))
        largest = call(loops.rank, len(chunk), addresses, kinds, rows, wanted, low, high, self._found, counts)
        if largest > LARGEST:
            raise NotFiniteError
        return [
            Found(above, highest, lowest, self._found[number, :between].copy())
            for number, (above, highest, lowest, between) in enumerate(counts.tolist())
        ]

    def _blocks(self, count: int) -> NDArray[np.float32]:
        if count not in self._rows:
            self._rows[count] = np.empty((count + 3, BLOCK), dtype=np.float32)
        return self._rows[count]


def _places(*tensors: torch.Tensor) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    return (
        np.array([tensor.data_ptr() for tensor in tensors], dtype=np.uint64),
        np.array([KINDS[tensor.dtype] for tensor in tensors], dtype=np.int64),
    )
