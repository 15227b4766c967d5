"""DELLA: drop at random, small magnitudes more often. Source: Deep et al. (arXiv 2406.11617)."""

from math import isfinite

import torch

from worker.methods.base import Chunk, NotFiniteError, Spec, UndefinedError, Workspace
from worker.methods.counter import key_of, random_words
from worker.methods.task_vectors import TaskVectorMethod

LANES = 2
"""Elements that one 64-bit random word serves: 31 bits each, more than an fp32 probability has."""
RESOLUTION = 31


class DellaLinear(TaskVectorMethod):
    """Keeps an entry with a probability that rises with its magnitude's rank in its row, density - ε to density + ε.

    Of equal magnitudes the one of lower index has the lower rank. Masks as DARE's: they depend on (seed, tensor,
    expert's commit, position) only. Probabilities are those of the fp32 formula, met to 2^-32. The kept are rescaled
    to the old L1 norm.
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
        mask = self._bits(number, chunk).sub_(limits).bitwise_right_shift_(RESOLUTION)  # -1 where below the limit
        delta.view(torch.int32).bitwise_and_(mask)

    def _bits(self, number: int, chunk: Chunk) -> torch.Tensor:
        """int32 of the chunk's length, uniform in 0 to 2^31 - 1."""
        first = chunk.start // LANES
        words = random_words(self._keys[number], start=first, size=-(-chunk.stop // LANES) - first, work=self.work)
        return words.view(torch.int32)[chunk.start - first * LANES :][: len(chunk)].bitwise_and_((1 << RESOLUTION) - 1)

    def _limits(self, rows: torch.Tensor, density: float, epsilon: float) -> torch.Tensor:
        """int32: each entry's probability in steps of 2^-31; the product is exact down to 2^-7, rounded below."""
        size = rows.shape[1]
        ranks = torch.empty(rows.shape, dtype=torch.float32)
        steps = torch.arange(size, dtype=torch.float32).expand_as(rows)
        ranks.scatter_(1, torch.argsort(rows.abs(), dim=1, stable=True), steps)
        chances = ranks.mul_(2 * epsilon / max(1, size - 1)).add_(density - epsilon)
        # what fp32 rounds up to 1 would not fit
        return chances.clamp_max_(1 - 2**-24).mul_(1 << RESOLUTION).round_().to(torch.int32)


class Della(DellaLinear):
    """DELLA's task vectors, mixed by TIES's election of signs."""

    name = "della"
    elects = True
