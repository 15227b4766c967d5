"""Arcee Fusion: only the changes that matter, by a dynamic threshold. Source: mergekit's arcee_fusion."""

import torch

from worker.methods.base import Chunk, Method, Spec, Workspace
from worker.methods.magnitude import Selection

EPSILON = 1e-8
QUARTILES = (0.25, 0.5, 0.75)
SPREAD = 1.5


class ArceeFusion(Method):
    """`base + Δ` where |Δ|·KL(softmax(expert's row) ‖ softmax(base's row)) is at least median + 1.5·(Q3 - Q1).

    The quartiles are exact and over all entries (mergekit estimates them from a random sample beyond a million).
    """

    name = "arcee_fusion"

    def __init__(self, spec: Spec, work: Workspace) -> None:
        super().__init__(spec, work)
        last = max(0, spec.elements - 1)
        self._quartiles = [
            Selection(spec.elements - int(share * last), elements=max(1, spec.elements), work=work)
            for share in QUARTILES
        ]
        self._threshold = 0.0

    @property
    def surveys(self) -> int:
        return 2

    @property
    def grain(self) -> int:
        return max(1, self.spec.row)

    def survey(self, chunk: Chunk) -> None:
        importance, _, _ = self._importance(chunk)
        for quartile in self._quartiles:
            quartile.count(importance, lower=self.turn == 1)

    def conclude(self) -> None:
        for quartile in self._quartiles:
            quartile.conclude_count(lower=self.turn == 1)
        first, median, third = (quartile.threshold for quartile in self._quartiles)
        self._threshold = median + SPREAD * (third - first)

    def merge(self, chunk: Chunk, out: torch.Tensor) -> None:
        importance, delta, base = self._importance(chunk)
        out.copy_(base.addcmul_(delta, (importance >= self._threshold).float()))

    def _importance(self, chunk: Chunk) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Importance, task vector and base of a chunk of whole rows, fp32; the divergence, a small sum of large terms
        of both signs, in fp64."""
        base = self.work.load("base", chunk.base)
        expert = self.work.load("expert", chunk.experts[0])
        new, old = (
            torch.softmax(model.view(-1, self.grain), dim=-1, dtype=torch.float64).add_(EPSILON)
            for model in (expert, base)
        )
        divergence = new.mul_(old.reciprocal_().mul_(new).log_()).sum(dim=-1, keepdim=True)
        delta = expert.sub_(base)
        importance = (delta.abs().view(-1, self.grain) * divergence).float().clamp_min_(0).view(-1)
        return importance, delta, base
