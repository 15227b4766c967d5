"""DELLA: drop at random, small magnitudes more often. Source: Deep et al. (arXiv 2406.11617)."""

from math import isfinite

import torch

from worker.methods.base import Chunk, NotFiniteError, Spec, UndefinedError, Workspace
from worker.methods.counter import RESOLUTION, key_of, random_bits
from worker.methods.task_vectors import TaskVectorMethod


class DellaLinear(TaskVectorMethod):
    """Keeps an entry with a probability that rises with its magnitude's rank in its row, density - ε to density + ε.

    Of equal magnitudes the one of lower index has the lower rank. Masks as DARE's: they depend on (seed, tensor,
    expert's commit, position) only. The kept are rescaled to the old L1 norm.
    """

    name = "della_linear"

    def __init__(self, spec: Spec, work: Workspace) -> None:
        self._chances = [(float(expert["density"]), float(expert["epsilon"])) for expert in spec.experts]
        for density, epsilon in self._chances:
            if 0 < density < 1 and not 0 < density - epsilon <= density + epsilon < 1:
                raise UndefinedError(f"density {density:g} ± epsilon {epsilon:g} must lie between 0 and 1, exclusive")
        super().__init__(spec, work)
        self._keys = [key_of(spec.parameters["seed"], spec.name, key) for key in spec.keys]

    @property
    def thins(self) -> bool:
        return any(density < 1 for density, _ in self._chances)

    @property
    def grain(self) -> int:
        return max(1, self.spec.row)

    def thin(self, number: int, delta: torch.Tensor, chunk: Chunk) -> None:
        density, epsilon = self._chances[number]
        if density >= 1:
            return
        if density <= 0:
            self.clear(delta)
            return
        if not self.rescale and not isfinite(delta.sum().item()):
            raise NotFiniteError(self.spec.name)
        limits = self._limits(delta.view(-1, self.grain), density, epsilon).view(-1)
        bits = random_bits(self._keys[number], start=chunk.start, size=len(chunk), work=self.work)
        mask = self.work.load("mask", bits, torch.int32).sub_(limits).bitwise_right_shift_(31)
        delta.view(torch.int32).bitwise_and_(mask)

    def _limits(self, rows: torch.Tensor, density: float, epsilon: float) -> torch.Tensor:
        """int32: each entry's probability in steps of 2^-15."""
        size = rows.shape[1]
        ranks = torch.empty(rows.shape, dtype=torch.float32)
        steps = torch.arange(size, dtype=torch.float32).expand_as(rows)
        ranks.scatter_(1, torch.argsort(rows.abs(), dim=1, stable=True), steps)
        chances = ranks.mul_(2 * epsilon / max(1, size - 1)).add_(density - epsilon)
        return chances.mul_(1 << RESOLUTION).round_().to(torch.int32)


class Della(DellaLinear):
    """DELLA's task vectors, mixed by TIES's election of signs."""

    name = "della"
    elects = True
