"""Methods whose result is a combination of the inputs with factors that depend on lengths and angles only.

All they need of a tensor is the matrix of inner products of its inputs (or of the task vectors): one survey of dot
products, fp32 within a chunk and fp64 over chunks (fp64 throughout for short tensors, and where a method is `exact`),
then one weighted sum.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch

from worker.methods.base import Chunk, Method, NotFiniteError, Spec, UndefinedError, Workspace
from worker.methods.blend import blend

SHORT = 1 << 12
"""Elements up to which fp64 costs nothing, and up to which vectors are often collinear."""


class ZeroNormError(UndefinedError):
    """A direction is needed and there is none; `code` is that of the service's error."""

    code: ClassVar[str] = "zero_norm"


class GeometricMethod(Method):
    """`Σ factorᵢ · vectorᵢ`; with `about_base`, the vectors are experts minus base, and the base is added."""

    exact: ClassVar[bool] = False
    """whether the products have to be fp64 within a chunk too"""

    def __init__(self, spec: Spec, work: Workspace) -> None:
        super().__init__(spec, work)
        self.uses_base = self.about_base
        size = len(spec.experts)
        self._products = [[0.0] * size for _ in range(size)]
        self._factors: Sequence[float] = ()

    @property
    def about_base(self) -> bool:
        return bool(self.spec.parameters.get("task_vectors"))

    @property
    def surveys(self) -> int:
        return 1

    @abstractmethod
    def factors(self, products: torch.Tensor) -> Sequence[float]:
        """The experts' factors from their inner products (n x n, fp64)."""

    def survey(self, chunk: Chunk) -> None:
        vectors = self._vectors(chunk)
        if self.exact or self.spec.elements <= SHORT:
            vectors = [self.work.load(f"wide{i}", vector, torch.float64) for i, vector in enumerate(vectors)]
        for i, left in enumerate(vectors):
            for j in range(i, len(vectors)):
                self._products[i][j] += torch.dot(left, vectors[j]).item()

    def conclude(self) -> None:
        upper = torch.tensor(self._products, dtype=torch.float64)
        products = upper + upper.triu(1).T
        if not products.isfinite().all():
            raise NotFiniteError(self.spec.name)
        self._factors = self.factors(products)

    def merge(self, chunk: Chunk, out: torch.Tensor) -> None:
        if not self.about_base:
            blend(self.work, chunk.experts, self._factors, out=out)
            return
        mixed = self.work.load("mixed", chunk.base)
        for vector, factor in zip(self._vectors(chunk), self._factors, strict=True):
            mixed.add_(vector, alpha=factor)
        out.copy_(mixed)

    def _vectors(self, chunk: Chunk) -> list[torch.Tensor]:
        vectors = [self.work.load(f"vector{i}", expert) for i, expert in enumerate(chunk.experts)]
        if self.about_base:
            base = self.work.load("base", chunk.base)
            for vector in vectors:
                vector.sub_(base)
        return vectors
