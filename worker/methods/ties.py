"""TIES: trim, elect signs, average those that agree. Source: Yadav et al. (arXiv 2306.01708)."""

import torch

from worker.methods.base import Chunk, Spec, Workspace
from worker.methods.magnitude import Selection, Trim
from worker.methods.task_vectors import TaskVectorMethod


class Ties(TaskVectorMethod):
    """Each task vector keeps its k = max(1, ⌊density · n⌋) largest magnitudes (per tensor, as mergekit does).

    Exact; of entries that equal the k-th magnitude, those of lowest index are kept (mergekit: whatever an unstable sort
    leaves).
    """

    name = "ties"
    elects = True

    def __init__(self, spec: Spec, work: Workspace) -> None:
        kept = [_kept(expert["density"], spec.elements) for expert in spec.experts]
        self._selections = [Selection(k, work) if 0 < k < spec.elements else None for k in kept]
        self._empty = [k == 0 for k in kept]
        self._trims: list[Trim | None] = []
        super().__init__(spec, work)

    @property
    def thins(self) -> bool:
        return any(self._selections) or any(self._empty)

    @property
    def surveys(self) -> int:
        return super().surveys + (2 if any(self._selections) else 0)

    def survey(self, chunk: Chunk) -> None:
        if self.turn == 2 or not any(self._selections):
            super().survey(chunk)
            return
        base = self.work.load("base", chunk.base)
        for number, selection in enumerate(self._selections):
            if selection:
                selection.count(self.delta(number, chunk, base), turn=self.turn)

    def conclude(self) -> None:
        if self.turn == 2 or not any(self._selections):
            super().conclude()
            return
        for selection in self._selections:
            if selection:
                selection.conclude(turn=self.turn)

    def begin(self) -> None:
        self._trims = [Trim(selection, self.work) if selection else None for selection in self._selections]

    def thin(self, number: int, delta: torch.Tensor, chunk: Chunk) -> None:  # noqa: ARG002
        trim = self._trims[number]
        if trim:
            trim(delta)
        elif self._empty[number]:
            delta.zero_()


def _kept(density: float, elements: int) -> int:
    if density >= 1:
        return elements
    return max(1, int(density * elements)) if density > 0 and elements else 0
