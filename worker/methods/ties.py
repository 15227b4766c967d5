"""TIES: trim, elect signs, average those that agree. Source: Yadav et al. (arXiv 2306.01708)."""

from collections.abc import Sequence

import torch

from worker.methods.base import Chunk, Spec, Workspace
from worker.methods.magnitude import GUESSES, Selection, Trim, sample_spans
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
        self._selections = [
            Selection(k, elements=spec.elements, work=work) if 0 < k < spec.elements else None for k in kept
        ]
        self._empty = [k == 0 for k in kept]
        self._trims: list[Trim | None] = []
        self._selecting = 1 if any(self._selections) else 0
        super().__init__(spec, work)

    @property
    def thins(self) -> bool:
        return any(self._selections) or any(self._empty)

    @property
    def probes(self) -> Sequence[tuple[int, int]]:
        return sample_spans(self.spec.elements) if any(self._selections) else ()

    @property
    def surveys(self) -> int:
        """One per round of guesses, two more where they were all wrong, one for norms."""
        return self._selecting + super().surveys

    def probe(self, chunk: Chunk) -> None:
        for selection, delta in self._deltas(chunk):
            selection.probe(delta)

    def survey(self, chunk: Chunk) -> None:
        if self.turn >= self._selecting:
            super().survey(chunk)
            return
        for selection, delta in self._deltas(chunk):
            if self.turn < GUESSES:
                if chunk.start == 0:
                    selection.guess()
                selection.check(delta, chunk.start)
            else:
                selection.count(delta, lower=self.turn > GUESSES)

    def conclude(self) -> None:
        if self.turn >= self._selecting:
            super().conclude()
            return
        open_ = [selection for selection in self._selections if selection and not selection.found]
        for selection in open_:
            if self.turn < GUESSES:
                selection.conclude_check()
            else:
                selection.conclude_count(lower=self.turn > GUESSES)
        if not all(selection.found for selection in open_):
            self._selecting = self.turn + 2

    def begin(self) -> None:
        self._trims = [Trim(selection, self.work) if selection else None for selection in self._selections]

    def thin(self, number: int, delta: torch.Tensor, chunk: Chunk) -> None:
        trim = self._trims[number]
        if trim:
            trim(delta, chunk.start)
        elif self._empty[number]:
            delta.zero_()

    def _deltas(self, chunk: Chunk) -> list[tuple[Selection, torch.Tensor]]:
        """The selections that are not done, each with its delta in a buffer of its own."""
        base = self.work.load("base", chunk.base)
        return [
            (selection, self.delta(number, chunk, base, key=f"delta{number}"))
            for number, selection in enumerate(self._selections)
            if selection and not selection.found
        ]


def _kept(density: float, elements: int) -> int:
    if density >= 1:
        return elements
    return max(1, int(density * elements)) if density > 0 and elements else 0
