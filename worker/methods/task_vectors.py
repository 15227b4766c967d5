"""What the methods on task vectors share: deltas in fp32, and their sums with or without an election of signs."""

from collections.abc import Sequence
from math import isfinite

import numpy as np
import torch

from worker.methods.base import Chunk, Method, NotFiniteError, Spec, Workspace
from worker.methods.compat import CompatTaskVectors
from worker.methods.fused.plan import Mix, Thinning

ZERO_SUM = 1e-8
"""Below this a divisor counts as zero, and as one (mergekit's rule)."""
ZERO_NORM = 1e-7
"""Below this L1 norm nothing is rescaled (mergekit's rule)."""
TINY = 1e-30
SMALLEST_NORMAL = 2.0**-126


class TaskVectorMethod(Method):
    """`base + λ · mix(w₁δ̂₁, w₂δ̂₂, …)`, δᵢ = expertᵢ - base in fp32; a subclass says by `thin` what δ̂ is.

    `elects`: only entries whose sign is that of `Σ wᵢδ̂ᵢ` (zero counts as plus) are added up, and `normalize` divides
    by the sum of their weights (TIES, arXiv 2306.01708, section 3); else all are, over the sum of all weights.
    `rescale` multiplies each δ̂ so that its L1 norm is that of δ (mergekit's rule), which takes one more survey.
    """

    elects = False

    def __init__(self, spec: Spec, work: Workspace) -> None:
        super().__init__(spec, work)
        self.weights = [float(expert["weight"]) for expert in spec.experts]
        self.scale = float(spec.parameters["lambda"])
        self.normalize = bool(spec.parameters["normalize"])
        self.rescale = bool(spec.parameters.get("rescale")) and self.thins
        self._norms = np.zeros((len(spec.experts), 2))
        self._factors = self.weights
        self._thinning: Thinning | None = None
        self._mix: Mix | None = None

    @classmethod
    def made_for(cls, spec: Spec, work: Workspace) -> Method:
        return CompatTaskVectors(spec, work) if spec.parameters.get("compat") else cls(spec, work)

    @classmethod
    def draws(cls, spec: Spec) -> int:
        return CompatTaskVectors.draws(spec) if spec.parameters.get("compat") else 0

    @classmethod
    def prepare(cls, work: Workspace, specs: Sequence[Spec]) -> None:
        if not all(spec.parameters.get("compat") for spec in specs) and work.engine:
            work.engine.load_task_vectors()

    @property
    def thins(self) -> bool:
        """Whether any task vector is thinned at all."""
        return False

    def begin(self) -> None:
        """A pass over all chunks begins in which `thin` is called for each, in order."""

    def thin(self, number: int, delta: torch.Tensor, chunk: Chunk) -> None:
        """Turns the delta of expert `number` into δ̂, in place; by default it is δ itself."""

    def thinning(self) -> Thinning | None:
        """What `thin` does, for the compiled loops; None where they cannot do it."""
        nothing = [0] * len(self.spec.experts)
        return Thinning(nothing, nothing, [()] * len(nothing)) if type(self).thin is TaskVectorMethod.thin else None

    def clear(self, delta: torch.Tensor) -> None:
        """Nothing of a chunk is kept; raises `NotFiniteError` where that would hide NaN or infinity."""
        if not isfinite(delta.abs().max().item()):
            raise NotFiniteError(self.spec.name)
        delta.zero_()

    @property
    def surveys(self) -> int:
        return int(self.rescale)

    def survey(self, chunk: Chunk) -> None:
        """The survey of norms, before and after thinning, in fp64; always the last one."""
        if chunk.start == 0:
            self._begin()
        if self._thinning and self.work.engine and self.work.engine.takes(chunk):
            self.work.engine.norms(chunk, self._thinning, self._norms)
            return
        base = self.work.load("base", chunk.base)
        for number, norms in enumerate(self._norms):
            delta = self.delta(number, chunk, base).abs_()  # thinning looks at magnitudes only
            norms[0] += delta.sum(dtype=torch.float64).item()
            self.thin(number, delta, chunk)
            norms[1] += delta.sum(dtype=torch.float64).item()

    def conclude(self) -> None:
        norms = self._norms.tolist()
        if not all(isfinite(before) for before, _ in norms):
            raise NotFiniteError(self.spec.name)
        self._factors = [
            weight * before / after if min(before, after) >= ZERO_NORM else weight
            for weight, (before, after) in zip(self.weights, norms, strict=True)
        ]

    def merge(self, chunk: Chunk, out: torch.Tensor) -> None:
        if chunk.start == 0:
            self._begin()
        if self._thinning and self._mix and self.work.engine and self.work.engine.takes(chunk, out.dtype):
            if not self.work.engine.merge(chunk, out, self._thinning, self._mix):
                raise NotFiniteError(self.spec.name)
            return
        base = self.work.load("base", chunk.base)
        if self._electing:
            base.add_(self._elected(chunk, base), alpha=self._scale)
        else:
            base.add_(self._summed(chunk, base))
        out.copy_(base)

    def _begin(self) -> None:
        self.begin()
        if not self.work.engine:
            return
        self._thinning = self.thinning()
        self._mix = (
            Mix(
                self._factors, self.weights, self._scale, elects=True, alike=self._alike,
                divided=self.normalize, paired=self._paired,
            )
            if self._electing
            else Mix(self._shares(), self.weights, scale=1.0)
        )  # fmt: skip

    @property
    def _electing(self) -> bool:
        return self.elects and len(self.spec.experts) > 1

    def delta(self, number: int, chunk: Chunk, base: torch.Tensor, *, key: str = "delta") -> torch.Tensor:
        """`expert - base` in fp32, in the buffer `key`."""
        return self.work.load(key, chunk.experts[number]).sub_(base)

    def _summed(self, chunk: Chunk, base: torch.Tensor) -> torch.Tensor:
        mixed = self.work.take("mixed", len(chunk))
        for number, factor in enumerate(self._shares()):
            delta = self.delta(number, chunk, base)
            self.thin(number, delta, chunk)
            if number == 0:
                torch.mul(delta, factor, out=mixed)
            else:
                mixed.add_(delta, alpha=factor)
        return mixed

    def _shares(self) -> Sequence[float]:
        """What each δ̂ is multiplied with where nothing is elected."""
        total = sum(self.weights)
        if self.elects:  # one expert alone: where its entry is not zero, it is elected, and its weight cancels
            total = self.weights[0]
        divisor = total if self.normalize and abs(total) >= ZERO_SUM else 1
        return [factor * self.scale / divisor for factor in self._factors]

    def _elected(self, chunk: Chunk, base: torch.Tensor) -> torch.Tensor:
        """With s = ±1 the elected sign, entry i counts where s·wᵢδ̂ᵢ > 0: sums of relu(s·wᵢδ̂ᵢ), without comparisons."""
        size = len(chunk)
        deltas = [self.delta(number, chunk, base, key=f"delta{number}") for number in range(len(chunk.experts))]
        for number, delta in enumerate(deltas):
            self.thin(number, delta, chunk)
            if not self._alike:
                delta.mul_(self._factors[number])
        sign = torch.add(deltas[0], deltas[1], out=self.work.take("sign", size))
        for delta in deltas[2:]:
            sign.add_(delta)
        sign.add_(SMALLEST_NORMAL).sign_()  # a sum of zero elects plus
        for delta in deltas:
            delta.mul_(sign).clamp_min_(0)
        mixed = torch.add(deltas[0], deltas[1], out=self.work.take("mixed", size))
        for delta in deltas[2:]:
            mixed.add_(delta)
        if self.normalize and self._paired:  # halved where both count: min(a, b) > 0
            mixed.addcmul_(mixed, torch.minimum(*deltas, out=deltas[0]).gt_(0), value=-0.5)
        elif self.normalize:
            mixed.div_(self._divisor(deltas))
        return mixed.mul_(sign)

    @property
    def _alike(self) -> bool:
        """Whether all δ̂ have the same positive factor: then it can wait until they are added up."""
        return self._factors[0] > 0 and len(set(self._factors)) == 1

    @property
    def _paired(self) -> bool:
        """Whether there are two experts of one weight: then a divisor is that weight once or twice."""
        return len(self.weights) == 2 and self._alike and self.weights[0] == self.weights[1]

    @property
    def _scale(self) -> float:
        """What is left to multiply the elected mix with."""
        if self.normalize and self._paired:
            return self.scale * self._factors[0] / self.weights[0]
        return self.scale * self._factors[0] if self._alike else self.scale

    def _divisor(self, counted: Sequence[torch.Tensor]) -> torch.Tensor:
        """The sum of the weights of what counts, 1 where that is zero; destroys `counted`."""
        divisor = self.work.take("divisor", len(counted[0]))
        for number, part in enumerate(counted):
            part.sign_()
            if number == 0:
                torch.mul(part, self.weights[0], out=divisor)
            else:
                divisor.add_(part, alpha=self.weights[number])
        if min(self.weights) >= 0:  # a zero divides zeros only
            return divisor.clamp_min_(TINY)
        return divisor.add_(torch.sign(divisor, out=counted[0]).abs_().neg_().add_(1))
