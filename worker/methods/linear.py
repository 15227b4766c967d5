"""Weighted mean of the experts. Source: Wortsman et al., "Model soups" (arXiv 2203.05482)."""

from collections.abc import Sequence

import torch

from worker.methods.base import Chunk, Method, Spec, Workspace
from worker.methods.blend import blend, prepare_blends
from worker.methods.compat import CompatLinear


class Linear(Method):
    """`Σ wᵢ·expertᵢ / Σ wᵢ`; without `normalize`, `Σ wᵢ·expertᵢ`. fp32, one rounding."""

    name = "linear"
    uses_base = False

    def __init__(self, spec: Spec, work: Workspace) -> None:
        super().__init__(spec, work)
        self._coefficients = normalized(
            [expert["weight"] for expert in spec.experts], normalize=spec.parameters["normalize"]
        )

    @classmethod
    def made_for(cls, spec: Spec, work: Workspace) -> Method:
        return CompatLinear(spec, work) if spec.parameters.get("compat") else cls(spec, work)

    @classmethod
    def prepare(cls, work: Workspace, specs: Sequence[Spec]) -> None:
        most = max((len(spec.experts) for spec in specs), default=0)
        prepare_blends(work, specs, saved=0.04 if most <= 2 else 0.1 * most)  # two are interpolated, in one pass

    def merge(self, chunk: Chunk, out: torch.Tensor) -> None:
        blend(self.work, chunk.experts, self._coefficients, out=out)


def normalized(weights: list[float], *, normalize: bool) -> list[float]:
    """The weights over their sum, where that is asked for and the sum is not zero."""
    total = sum(weights)
    return [weight / total for weight in weights] if normalize and abs(total) >= 1e-8 else weights
