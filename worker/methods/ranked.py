"""Task vectors of which entries are chosen by the rank of their magnitude."""

from abc import abstractmethod
from collections.abc import Sequence

import torch

from worker.methods.base import Chunk, Spec, Workspace
from worker.methods.magnitude import Selection, sample_spans
from worker.methods.task_vectors import TaskVectorMethod


class RankedMethod(TaskVectorMethod):
    """Finds the thresholds that a subclass asks for by `ranks`, in as few surveys as they need."""

    def __init__(self, spec: Spec, work: Workspace) -> None:
        self.ranks = [self.ranks_of(number, spec) for number in range(len(spec.experts))]
        self.selections = [
            [Selection(rank, elements=spec.elements, work=work) if 0 < rank < spec.elements else None for rank in ranks]
            for ranks in self.ranks
        ]
        self._selecting = 1 if self._open() else 0
        super().__init__(spec, work)

    @abstractmethod
    def ranks_of(self, number: int, spec: Spec) -> Sequence[int]:
        """The ranks (1 is the largest magnitude) to be found in an expert's task vector."""

    @property
    def thins(self) -> bool:
        return any(rank < self.spec.elements for ranks in self.ranks for rank in ranks)

    @property
    def probes(self) -> Sequence[tuple[int, int]]:
        return sample_spans(self.spec.elements) if self._selecting else ()

    @property
    def surveys(self) -> int:
        """One to find the thresholds, more where the sample misled, one for norms."""
        return self._selecting + super().surveys

    def probe(self, chunk: Chunk) -> None:
        for selection, delta in self._deltas(chunk):
            selection.probe(delta)

    def survey(self, chunk: Chunk) -> None:
        if self.turn >= self._selecting:
            super().survey(chunk)
            return
        open_ = self._open()
        if self.turn == 0 and chunk.start == 0:
            for _, selection in open_:
                selection.guess()
        if self.work.engine and self.work.engine.takes(chunk):
            brackets = [(number, selection.bracket.low, selection.bracket.high) for number, selection in open_]
            for (_, selection), found in zip(open_, self.work.engine.rank(chunk, brackets), strict=True):
                selection.bracket.add(found)
            return
        for selection, delta in self._deltas(chunk):
            selection.check(delta)

    def conclude(self) -> None:
        if self.turn >= self._selecting:
            super().conclude()
            return
        for _, selection in self._open():
            selection.conclude_check()
        if self._open():
            self._selecting = self.turn + 2

    def _open(self) -> list[tuple[int, Selection]]:
        """The selections that are not found yet, with the experts' numbers."""
        return [
            (number, selection)
            for number, selections in enumerate(self.selections)
            for selection in selections
            if selection and not selection.found
        ]

    def _deltas(self, chunk: Chunk) -> list[tuple[Selection, torch.Tensor]]:
        base = self.work.load("base", chunk.base)
        open_ = self._open()
        deltas = {number: self.delta(number, chunk, base, key=f"delta{number}") for number, _ in open_}
        return [(selection, deltas[number]) for number, selection in open_]
