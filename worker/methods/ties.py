"""TIES: trim, elect signs, average those that agree. Source: Yadav et al. (arXiv 2306.01708)."""

from collections.abc import Sequence

import torch

from worker.methods.base import Chunk, Spec
from worker.methods.fused.plan import Thinning
from worker.methods.magnitude import Trim
from worker.methods.ranked import RankedMethod


class Ties(RankedMethod):
    """Each task vector keeps its k = max(1, ⌊density · n⌋) largest magnitudes (per tensor, as mergekit does).

    Exact; of entries that equal the k-th magnitude, those of lowest index are kept (mergekit: whatever an unstable sort
    leaves).
    """

    name = "ties"
    elects = True

    def ranks_of(self, number: int, spec: Spec) -> Sequence[int]:
        density = float(spec.experts[number]["density"])
        if density >= 1:
            return (spec.elements,)
        return (max(1, int(density * spec.elements)) if density > 0 and spec.elements else 0,)

    def begin(self) -> None:
        self._trims = [Trim(selection, self.work) if selection else None for (selection,) in self.selections]

    def thinning(self) -> Thinning:
        found = [selection for (selection,) in self.selections]
        thresholds = [selection.threshold if selection else 0.0 for selection in found]
        equal = [selection.equal if selection else 0 for selection in found]
        return Thinning(thresholds, equal, [[(0, 0)] if ranks[0] == 0 else [] for ranks in self.ranks])

    def thin(self, number: int, delta: torch.Tensor, chunk: Chunk) -> None:
        trim = self._trims[number]
        if trim:
            trim(delta, chunk.start)
        elif self.ranks[number][0] == 0:
            self.clear(delta)
