"""Spherical linear interpolation of whole tensors.

Source: Shoemake, "Animating rotation with quaternion curves", SIGGRAPH 1985; on model weights as mergekit 0.1.5 does:
the angle is taken between the unit vectors, the coefficients are applied to the tensors as they are.
"""

import math
from collections.abc import Sequence

import torch

from worker.methods.base import Chunk, Method, Spec, Workspace
from worker.methods.blend import blend, prepare_blends
from worker.methods.compat import CompatSlerp
from worker.methods.products import Products

PARALLEL = 0.9995
"""Past this |cos| the sphere is flat to fp32 and LERP is used (mergekit's threshold)."""
ZERO_NORM = 1e-8
NO_DIRECTION = "lerp_zero_norm"
"""what is noted of a tensor that is zero in one of the models: no sphere goes through it, so a line does"""


class Slerp(Method):
    """`sin((1-t)θ)/sin θ · base + sin(tθ)/sin θ · expert`; the flattened tensor is one vector.

    `t` = 0 gives the base, 1 the expert, both exactly. Norms and dot product are summed in fp64.
    A tensor of zero norm, or |cos θ| > 0.9995, is interpolated linearly; `operation` says which of these it was.
    """

    name = "slerp"

    def __init__(self, spec: Spec, work: Workspace) -> None:
        super().__init__(spec, work)
        self.t = float(spec.parameters["t"])
        self._products = Products(work)
        self._coefficients = (1 - self.t, self.t)
        self._operation = "slerp"

    @classmethod
    def made_for(cls, spec: Spec, work: Workspace) -> Method:
        return CompatSlerp(spec, work) if spec.parameters.get("compat") else cls(spec, work)

    @classmethod
    def prepare(cls, work: Workspace, specs: Sequence[Spec]) -> None:
        prepare_blends(work, specs, saved=0.95)

    @property
    def surveys(self) -> int:
        return 0 if self.t in (0.0, 1.0) else 1

    @property
    def operation(self) -> str:
        return self._operation

    def survey(self, chunk: Chunk) -> None:
        self._products.add(chunk.base, chunk.experts[0])

    def conclude(self) -> None:
        norms = self._products.norms
        cosine = self._products.dot / (norms[0] * norms[1]) if min(norms) > ZERO_NORM else 0.0
        self._coefficients = coefficients(cosine, t=self.t)
        if min(norms) <= ZERO_NORM or abs(cosine) > PARALLEL:
            self._coefficients, self._operation = (1 - self.t, self.t), "lerp"
        if min(norms) <= ZERO_NORM:
            self._operation = NO_DIRECTION

    def merge(self, chunk: Chunk, out: torch.Tensor) -> None:
        if self.t in (0.0, 1.0):
            out.copy_(chunk.experts[0] if self.t else chunk.base)
        else:
            blend(self.work, (chunk.base, chunk.experts[0]), self._coefficients, out=out)


def coefficients(cosine: float, *, t: float) -> tuple[float, float]:
    """The factors of the two vectors, from the cosine of the angle between them."""
    if abs(cosine) > PARALLEL or math.isnan(cosine):
        return 1 - t, t
    angle = math.acos(cosine)
    return math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)
