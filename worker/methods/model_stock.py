"""Model Stock. Source: Jang et al. (arXiv 2403.19522); over all pairs, as mergekit does."""

from collections.abc import Sequence
from itertools import combinations

import torch

from worker.methods.base import Chunk, Method, Spec, Workspace
from worker.methods.geometry import GeometricMethod

LEAST_PRODUCT = 1e-6
SINGULAR = 1e-6


class ModelStock(GeometricMethod):
    """`t·mean(experts) + (1-t)·base`, `t = N·cos θ / (1 + (N-1)·cos θ)`, cos θ the mean over pairs of task vectors.

    Where the denominator vanishes (opposing task vectors) the base stays. `filter_wise`: one angle per row.
    """

    name = "model_stock"

    @classmethod
    def made_for(cls, spec: Spec, work: Workspace) -> Method:
        return RowStock(spec, work) if spec.parameters["filter_wise"] and len(spec.shape) > 1 else cls(spec, work)

    @property
    def about_base(self) -> bool:
        return True

    def factors(self, products: torch.Tensor) -> Sequence[float]:
        count = len(products)
        t = ratio(products[:, :, None])[0].item()
        return [t / count] * count


class RowStock(Method):
    """The same for every row by itself; chunks hold whole rows."""

    @property
    def operation(self) -> str:
        return ModelStock.name

    @property
    def grain(self) -> int:
        return max(1, self.spec.row)

    def merge(self, chunk: Chunk, out: torch.Tensor) -> None:
        base = self.work.load("base", chunk.base).view(-1, self.grain)
        deltas = torch.stack([expert.float().view(-1, self.grain) - base for expert in chunk.experts])
        products = torch.einsum("ird,jrd->ijr", deltas, deltas).double()
        t = ratio(products).float()[:, None]
        out.copy_(base.addcmul_(deltas.mean(dim=0), t).view(-1))


def ratio(products: torch.Tensor) -> torch.Tensor:
    """t for inner products of task vectors: (n, n, rows) gives (rows)."""
    count = len(products)
    cosines = []
    for i, j in combinations(range(count), 2):
        norms = (products[i, i] * products[j, j]).sqrt().clamp_min(LEAST_PRODUCT)
        cosines.append((products[i, j] / norms).clamp(-1, 1))
    cosine = torch.stack(cosines).mean(dim=0)
    denominator = 1 + (count - 1) * cosine
    singular = denominator.abs() < SINGULAR
    return torch.where(singular, 0, count * cosine / torch.where(singular, 1, denominator))
