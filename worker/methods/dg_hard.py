"""DG-Hard: keeps of each task vector the singular directions that stand out of the noise. Source: arXiv 2605.20296."""

from math import sqrt

import torch

from worker.methods.base import Chunk, Method, NotFiniteError, Spec, Workspace
from worker.spectra.mp import noise_scale

LEAST_CHANGE = 1e-8


class DgHard(Method):
    """`base + U S* Vᵀ` of the task vector Δ = U S Vᵀ, S* = S where S > τ*, else 0.

    τ* = scale · ω(β) · median(S)/μ_β, ω(β) = √(2(β+1) + 8β/((β+1) + √(β²+14β+1))) (Gavish & Donoho, arXiv 1305.5870,
    equation 11), β = min/max of the shape. Only matrices of at least `min_elements` entries that changed by more than
    1e-8; everything else is the expert's. Singular values come from the fp64 Gram matrix on the short side, and Δ is
    projected on the kept directions, which is the same as U S* Vᵀ.
    """

    name = "dg_hard"

    def __init__(self, spec: Spec, work: Workspace) -> None:
        super().__init__(spec, work)
        self._repairs = len(spec.shape) == 2 and spec.elements >= spec.parameters["min_elements"]
        self._tall = self._repairs and spec.shape[0] >= spec.shape[1]
        short = min(spec.shape) if self._repairs else 0
        self._gram = torch.zeros(short, short, dtype=torch.float64)
        self._projection = torch.empty(0)
        self._largest = 0.0

    @property
    def surveys(self) -> int:
        return int(self._repairs)

    @property
    def grain(self) -> int:
        """Rows where they are the short vectors; a wide matrix is needed whole."""
        if not self._repairs:
            return 1
        return self.spec.row if self._tall else self.spec.elements

    @property
    def operation(self) -> str:
        return self.name if self._projection.numel() else "copied_adapted"

    def survey(self, chunk: Chunk) -> None:
        delta, _ = self._delta(chunk)
        self._largest = max(self._largest, delta.abs().max().item())
        wide = delta.double()
        self._gram += wide.T @ wide if self._tall else wide @ wide.T

    def conclude(self) -> None:
        if not self._gram.isfinite().all():
            raise NotFiniteError(self.spec.name)
        if self._largest <= LEAST_CHANGE:
            return
        squares, directions = torch.linalg.eigh(self._gram)
        kept = directions[:, squares.clamp_min(0).sqrt() > self._edge(squares.clamp_min(0).sqrt())]
        self._projection = (kept @ kept.T).float()

    def merge(self, chunk: Chunk, out: torch.Tensor) -> None:
        if not self._projection.numel():
            out.copy_(chunk.experts[0])
            return
        delta, base = self._delta(chunk)
        kept = delta @ self._projection if self._tall else self._projection @ delta
        out.copy_(kept.add_(base).view(-1))

    def _delta(self, chunk: Chunk) -> tuple[torch.Tensor, torch.Tensor]:
        base = self.work.load("base", chunk.base).view(-1, self.spec.row)
        return self.work.load("delta", chunk.experts[0]).view(-1, self.spec.row).sub_(base), base

    def _edge(self, values: torch.Tensor) -> float:
        beta = min(self.spec.shape) / max(self.spec.shape)
        omega = sqrt(2 * (beta + 1) + 8 * beta / ((beta + 1) + sqrt(beta * beta + 14 * beta + 1)))
        return float(self.spec.parameters["scale"]) * omega * noise_scale(values, shape=self.spec.shape)
