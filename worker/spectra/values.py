"""All singular values of a weight matrix, through its Gram matrix on the short side."""

import math
from typing import Literal

import torch
from torch import Tensor

from worker.spectra.gram import gram

Precision = Literal["exact"]
EPSILON = 2.0**-53  # unit roundoff of fp64


def singular_values(matrix: Tensor, *, precision: Precision = "exact") -> Tensor:
    """The singular values of a 2-D `matrix` of any float dtype: fp64, descending, min(n, m) of them.

    `exact`: fp64 Gram matrix and symmetric eigensolver. With u = 2⁻⁵³ and n the short side every eigenvalue is within
    n·u·λ₁ of the truth (Weyl's bound on a backward error of that size), so σᵢ is within n·u·σ₁²/σᵢ: at n = 2048 a
    value of σ₁/1000 is right to 3e-7 of itself. Values under `resolution` cannot be told from zero by this way and are
    returned as zero. A wide matrix is turned tall first: LAPACK's own values of a wide one cost up to six times more.

    Raises `ValueError` for anything but a finite 2-D matrix, or another precision.
    """
    if precision != "exact":
        raise ValueError(f"there is no precision {precision!r}")
    if matrix.ndim != 2:
        raise ValueError(f"a matrix has two dimensions, not {matrix.ndim}")
    if matrix.numel() == 0:
        return torch.zeros(0, dtype=torch.float64)
    product, scale = gram(matrix)
    eigenvalues = torch.linalg.eigvalsh(product).flip(0)
    floor = resolution(matrix.shape, sigma_1=1.0) ** 2 * float(eigenvalues[0])
    resolved = torch.where(eigenvalues > floor, eigenvalues, 0.0)
    return resolved.sqrt_().mul_(scale).cpu()


def resolution(shape: torch.Size | tuple[int, ...], *, sigma_1: float) -> float:
    """The size below which a singular value is not told from zero: σ₁·√(n·u), n the short side, u = 2⁻⁵³."""
    return sigma_1 * math.sqrt(min(shape) * EPSILON)


def flops(shape: torch.Size | tuple[int, ...]) -> float:
    """The arithmetic of one spectrum, n²m + n³ with n the short side: what progress is counted in."""
    short, long = sorted(shape)
    return float(short * short * long + short**3)
