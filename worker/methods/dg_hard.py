"""DG-Hard: keeps of each task vector the singular directions that stand out of the noise. Source: arXiv 2605.20296."""

from math import ceil, sqrt

import torch

from worker.methods.base import Chunk, Method, NotFiniteError, Spec, Workspace
from worker.spectra.mp import noise_scale

LEAST_CHANGE = 1e-8
HELD = 12_000_000
"""Elements of a wide matrix that are held in fp64, to be multiplied with all others."""
TILE = 1 << 21
"""Elements of a chunk of whole rows."""


class DgHard(Method):
    """`base + U S* Vᵀ` of the task vector Δ = U S Vᵀ, S* = S where S > τ*, else 0.

    τ* = scale · ω(β) · median(S)/μ_β, ω(β) = √(2(β+1) + 8β/((β+1) + √(β²+14β+1))) (Gavish & Donoho, arXiv 1305.5870,
    equation 11), β = min/max of the shape. Only matrices of at least `min_elements` entries that changed by more than
    1e-8; everything else is the expert's. Singular values come from the fp64 Gram matrix on the short side, and Δ is
    projected on the kept directions, which is the same as U S* Vᵀ: `(Δ V) Vᵀ` row by row for a tall matrix; for a wide
    one `U (Uᵀ Δ)`, with the second factor summed up in a survey. Memory holds, beside a chunk, 8·short² bytes for the
    Gram matrix (three times that while its eigenvectors are computed), a block of 96 MB, and U and Uᵀ Δ in fp32: less
    than half as many rows as Δ has, for no more than half of the values are above their median.
    """

    name = "dg_hard"

    def __init__(self, spec: Spec, work: Workspace) -> None:
        super().__init__(spec, work)
        self._repairs = len(spec.shape) == 2 and spec.elements >= spec.parameters["min_elements"]
        self._tall = self._repairs and spec.shape[0] >= spec.shape[1]
        short = min(spec.shape) if self._repairs else 0
        self._gram = torch.zeros(short, short, dtype=torch.float64)
        self._held = 0 if self._tall else min(short, max(1, HELD // spec.row if self._repairs else 1))
        self._block = torch.empty(self._held, spec.row if self._held else 0, dtype=torch.float64)
        self._passes = 1 if self._tall else ceil(short / self._held) if self._held else 0
        self._kept: torch.Tensor | None = None
        self._right = torch.empty(0)
        self._largest = 0.0

    @property
    def surveys(self) -> int:
        """One for a tall matrix; for a wide one one for each block of rows that is held, and one for `Uᵀ Δ`."""
        return self._passes + (self._kept is not None and not self._tall)

    @property
    def grain(self) -> int:
        """Whole rows, many of them: products of few rows are slow."""
        return self.spec.row * max(1, TILE // self.spec.row) if self._repairs else 1

    @property
    def operation(self) -> str:
        return "copied_adapted" if self._kept is None else self.name

    def survey(self, chunk: Chunk) -> None:
        delta, _ = self._delta(chunk)
        if self.turn == self._passes:
            assert self._kept is not None
            first = chunk.start // self.spec.row
            self._right += self._kept[first : first + len(delta)].T @ delta
            return
        if self.turn == 0:
            self._largest = max(self._largest, delta.abs().max().item())
        wide = self.work.load("wide", delta.view(-1), torch.float64).view(delta.shape)
        if self._tall:
            self._gram.addmm_(wide.T, wide)
        else:
            self._survey_wide(wide, row=chunk.start // self.spec.row)

    def _survey_wide(self, wide: torch.Tensor, *, row: int) -> None:
        """The chunk's rows, from `row` on, times those of the held block so far: the Gram matrix's lower triangle."""
        begin = self.turn * self._held
        end = min(begin + self._held, row + len(wide))
        if end <= begin:
            return
        if row < begin + self._held:
            first = max(begin, row)
            self._block[first - begin : end - begin] = wide[first - row : end - row]
        self._gram[row : row + len(wide), begin:end] = wide @ self._block[: end - begin].T

    def conclude(self) -> None:
        if self.turn != self._passes - 1:
            return
        if not self._gram.isfinite().all():
            raise NotFiniteError(self.spec.name)
        if self._largest > LEAST_CHANGE:
            squares, directions = torch.linalg.eigh(self._gram)  # reads the lower triangle
            values = squares.clamp_min_(0).sqrt_()
            self._kept = directions[:, values > self._edge(values)].float()
            self._right = torch.zeros(self._kept.shape[1], 0 if self._tall else self.spec.row)
        self._gram = self._block = torch.empty(0)

    def merge(self, chunk: Chunk, out: torch.Tensor) -> None:
        if self._kept is None:
            out.copy_(chunk.experts[0])
        elif self._tall:
            delta, base = self._delta(chunk)
            out.copy_(base.addmm_(delta @ self._kept, self._kept.T).view(-1))
        else:
            base = self.work.load("base", chunk.base).view(-1, self.spec.row)
            first = chunk.start // self.spec.row
            out.copy_(base.addmm_(self._kept[first : first + len(base)], self._right).view(-1))

    def _delta(self, chunk: Chunk) -> tuple[torch.Tensor, torch.Tensor]:
        base = self.work.load("base", chunk.base).view(-1, self.spec.row)
        return self.work.load("delta", chunk.experts[0]).view(-1, self.spec.row).sub_(base), base

    def _edge(self, values: torch.Tensor) -> float:
        beta = min(self.spec.shape) / max(self.spec.shape)
        omega = sqrt(2 * (beta + 1) + 8 * beta / ((beta + 1) + sqrt(beta * beta + 14 * beta + 1)))
        return float(self.spec.parameters["scale"]) * omega * noise_scale(values, shape=self.spec.shape)
