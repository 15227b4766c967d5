"""WiSE-FT: uniform interpolation between base and expert. Source: Wortsman et al. (arXiv 2109.01903)."""

from collections.abc import Sequence

import torch

from worker.methods.base import Chunk, Method, Spec, Workspace
from worker.methods.blend import blend, prepare_blends


class WiseFt(Method):
    """`(1-alpha)·base + alpha·expert`; 0 and 1 give the models themselves."""

    name = "wise_ft"

    @classmethod
    def prepare(cls, work: Workspace, specs: Sequence[Spec]) -> None:
        prepare_blends(work, specs, saved=0.04)

    def merge(self, chunk: Chunk, out: torch.Tensor) -> None:
        alpha = float(self.spec.parameters["alpha"])
        if alpha in (0.0, 1.0):
            out.copy_(chunk.experts[0] if alpha else chunk.base)
        else:
            blend(self.work, (chunk.base, chunk.experts[0]), (1 - alpha, alpha), out=out)
