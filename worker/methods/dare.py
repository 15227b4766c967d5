"""DARE: drop at random and rescale. Source: Yu et al. (arXiv 2311.03099)."""

import math

import torch

from worker.methods.base import Chunk, NotFiniteError, Spec, Workspace
from worker.methods.counter import keep_mask, key_of, mask_levels
from worker.methods.fused.plan import Thinning
from worker.methods.task_vectors import TaskVectorMethod

HELD = 64_000_000
"""Bytes of masks that are held between two passes of torch over one tensor; beyond that they are made again."""


class DareLinear(TaskVectorMethod):
    """Keeps each entry of a task vector with probability `density`, rescales to the old L1 norm, adds up.

    The mask depends on nothing but (seed, tensor name, expert's commit, position): see `worker.methods.counter`. The
    probability is taken to 15 bits, one below 1/128 to eight digits or more.
    """

    name = "dare_linear"

    def __init__(self, spec: Spec, work: Workspace) -> None:
        self._densities = [float(expert["density"]) for expert in spec.experts]
        super().__init__(spec, work)
        self._keys = [key_of(spec.parameters["seed"], spec.name, key) for key in spec.keys]
        self._held: torch.Tensor | None = None
        if self.rescale and not work.engine and spec.elements * len(spec.experts) <= HELD:
            pool: torch.Tensor = work.memory.setdefault("dare", torch.empty(HELD, dtype=torch.int8))
            self._held = pool[: spec.elements * len(spec.experts)].view(len(spec.experts), -1)

    @property
    def thins(self) -> bool:
        return any(density < 1 for density in self._densities)

    def thinning(self) -> Thinning:
        nothing = [0] * len(self._keys)
        masks = [
            mask_levels(key, density) if density < 1 else []
            for key, density in zip(self._keys, self._densities, strict=True)
        ]
        return Thinning(nothing, nothing, masks)

    def thin(self, number: int, delta: torch.Tensor, chunk: Chunk) -> None:
        if self._densities[number] >= 1:
            return
        if not self.rescale and not math.isfinite(delta.sum().item()):
            raise NotFiniteError(self.spec.name)
        wide = self.work.load("mask", self._mask(number, chunk), torch.int32)  # -1 stays -1: the sign is extended
        delta.view(torch.int32).bitwise_and_(wide)

    def _mask(self, number: int, chunk: Chunk) -> torch.Tensor:
        held = None if self._held is None else self._held[number, chunk.start : chunk.stop]
        if held is not None and self.turn:  # the survey is over
            return held
        mask = keep_mask(
            self._keys[number], start=chunk.start, size=len(chunk), density=self._densities[number], work=self.work
        )
        if held is not None:
            held.copy_(mask)
        return mask


class DareTies(DareLinear):
    """DARE's task vectors, mixed by TIES's election of signs."""

    name = "dare_ties"
    elects = True
