"""SLERP of two experts with weights, of whole tensors, rows or columns. Source: mergekit's NuSLERP."""

from collections.abc import Sequence
from math import acos, sin, sqrt

import torch

from worker.methods.base import Chunk, Method, Spec, Workspace
from worker.methods.geometry import GeometricMethod
from worker.methods.slerp import NO_DIRECTION

ZERO_NORM = 1e-7
COLLINEAR = 1e-16
"""sin² below which the angle is none and the interpolation linear"""
OPPOSED = -1 + 1e-7
"""cosine below which the vectors are antiparallel to fp32: no great circle is the shortest, the interpolation linear"""


class NuSlerp(GeometricMethod):
    """`t = w₂/(w₁+w₂)` of the way from the first expert to the second on the sphere.

    LERP only where sin θ < 1e-8, the vectors are antiparallel, or one of them is zero (`operation` says so of whole
    tensors). With `task_vectors`, the task vectors are interpolated and added to the base; there a zero is no change.
    """

    name = "nuslerp"
    exact = True
    _flat = False

    @property
    def operation(self) -> str:
        return NO_DIRECTION if self._flat else self.name

    @classmethod
    def made_for(cls, spec: Spec, work: Workspace) -> Method:
        if spec.parameters["nuslerp_flatten"] or len(spec.shape) < 2:
            return cls(spec, work)
        return ColumnSlerp(spec, work) if spec.parameters["nuslerp_row_wise"] else RowSlerp(spec, work)

    def factors(self, products: torch.Tensor) -> Sequence[float]:
        norms = [max(sqrt(max(0.0, products[i, i].item())), ZERO_NORM) for i in range(2)]
        flat = min(norms) <= ZERO_NORM
        self._flat = flat and not self.about_base
        cosine = max(-1.0, min(1.0, products[0, 1].item() / (norms[0] * norms[1])))
        t = share(self.spec)
        if flat or 1 - cosine * cosine <= COLLINEAR or cosine <= OPPOSED:
            return [1 - t, t]
        angle = acos(cosine)
        return [sin((1 - t) * angle) / sin(angle), sin(t * angle) / sin(angle)]


class RowSlerp(Method):
    """Every row (vector along the last dimension) by itself; chunks hold whole rows, no survey is needed."""

    def __init__(self, spec: Spec, work: Workspace) -> None:
        super().__init__(spec, work)
        self.uses_base = bool(spec.parameters["task_vectors"])

    @property
    def operation(self) -> str:
        return NuSlerp.name

    @property
    def grain(self) -> int:
        return max(1, self.spec.row)

    def merge(self, chunk: Chunk, out: torch.Tensor) -> None:
        one, two = (vector.view(-1, self.grain) for vector in self.vectors(chunk))
        factors = _factors(_dots(one, one), _dots(two, two), _dots(one, two), t=share(self.spec))
        self.finish(chunk, out, one, two, factors)

    def vectors(self, chunk: Chunk) -> list[torch.Tensor]:
        """Both experts, or their task vectors, in fp32."""
        vectors = [self.work.load(f"vector{i}", expert) for i, expert in enumerate(chunk.experts)]
        if self.spec.parameters["task_vectors"]:
            base = self.work.load("base", chunk.base)
            for vector in vectors:
                vector.sub_(base)
        return vectors

    def finish(
        self, chunk: Chunk, out: torch.Tensor, one: torch.Tensor, two: torch.Tensor,
        factors: tuple[torch.Tensor, torch.Tensor],
    ) -> None:
        """The blend of both with factors that broadcast over them, and the base where task vectors are meant."""
        mixed = one.mul_(factors[0]).add_(two.mul_(factors[1])).view(-1)
        out.copy_(mixed.add_(chunk.base) if self.spec.parameters["task_vectors"] else mixed)


class ColumnSlerp(RowSlerp):
    """Every column (vector along the first dimension) by itself; the columns' products are surveyed, in fp64."""

    def __init__(self, spec: Spec, work: Workspace) -> None:
        super().__init__(spec, work)
        self._sums = torch.zeros(3, self.grain, dtype=torch.float64)

    @property
    def grain(self) -> int:
        return max(1, self.spec.elements // max(1, self.spec.shape[0]))

    @property
    def surveys(self) -> int:
        return 1

    def survey(self, chunk: Chunk) -> None:
        one, two = (vector.view(-1, self.grain) for vector in self.vectors(chunk))
        for number, (left, right) in enumerate(((one, one), (two, two), (one, two))):
            self._sums[number] += (left.double() * right).sum(dim=0)

    def merge(self, chunk: Chunk, out: torch.Tensor) -> None:
        one, two = (vector.view(-1, self.grain) for vector in self.vectors(chunk))
        self.finish(chunk, out, one, two, _factors(*self._sums, t=share(self.spec)))


def share(spec: Spec) -> float:
    """How far to go from the first expert to the second."""
    first, second = (float(expert["weight"]) for expert in spec.experts)
    return 0.5 if abs(first + second) < 1e-6 else second / (first + second)


def _dots(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """In fp64: in fp32 the cosine of collinear vectors is not 1 but about."""
    return (left.double() * right).sum(dim=1, keepdim=True)


def _factors(
    one: torch.Tensor, two: torch.Tensor, both: torch.Tensor, *, t: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The factors of both vectors from their inner products, fp64 in, fp32 out."""
    norms = one.sqrt().clamp_min(ZERO_NORM) * two.sqrt().clamp_min(ZERO_NORM)
    cosine = (both / norms).clamp(-1, 1)
    flat = torch.minimum(one, two).sqrt() <= ZERO_NORM
    linear = flat | (1 - cosine.square() <= COLLINEAR) | (cosine <= OPPOSED)
    angle = torch.acos(torch.where(linear, 0, cosine))
    first = torch.where(linear, 1 - t, torch.sin((1 - t) * angle) / torch.sin(angle))
    second = torch.where(linear, t, torch.sin(t * angle) / torch.sin(angle))
    return first.float(), second.float()
