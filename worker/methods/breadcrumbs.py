"""Model Breadcrumbs. Source: Davari & Belilovsky (arXiv 2312.06795)."""

from collections.abc import Sequence

import torch

from worker.methods.base import Chunk, Spec
from worker.methods.magnitude import Trim
from worker.methods.ranked import RankedMethod


class Breadcrumbs(RankedMethod):
    """Each task vector loses its ⌊gamma·n⌋ largest magnitudes, then its smallest until ⌊density·n⌋ are left.

    As mergekit 0.1.5: fewer of the largest go where density asks for them; density 1 changes nothing. Of equal
    magnitudes those of lower index count as larger.
    """

    name = "breadcrumbs"

    def ranks_of(self, number: int, spec: Spec) -> Sequence[int]:
        density, gamma = (float(spec.experts[number][key]) for key in ("density", "gamma"))
        if density >= 1:
            return (0, spec.elements)
        keep = int(density * spec.elements)
        smallest = max(0, spec.elements - keep - int(gamma * spec.elements))
        return (spec.elements - smallest - keep, spec.elements - smallest)

    def begin(self) -> None:
        self._trims = [
            [Trim(selection, self.work) if selection else None for selection in pair] for pair in self.selections
        ]

    def thin(self, number: int, delta: torch.Tensor, chunk: Chunk) -> None:
        dropped, kept = self.ranks[number]
        drop, keep = self._trims[number]
        if dropped == kept:
            self.clear(delta)
            return
        largest = self.work.take("outliers", len(delta)).copy_(delta) if drop else None
        if keep:
            keep(delta, chunk.start)
        if drop and largest is not None:
            drop(largest, chunk.start)
            delta.sub_(largest)  # x - x is zero exactly, x - 0 is x


class BreadcrumbsTies(Breadcrumbs):
    """Breadcrumbs' task vectors, mixed by TIES's election of signs."""

    name = "breadcrumbs_ties"
    elects = True
