"""All singular values of a weight matrix, through its Gram matrix on the short side."""

import math
from typing import Literal

import torch
from torch import Tensor

from worker.spectra.gram import DOUBLE, SINGLE, gram

Precision = Literal["exact", "single"]
GRADES = {"exact": DOUBLE, "single": SINGLE}
ROUNDOFF = {"exact": 2.0**-53, "single": 2.0**-24}


def singular_values(matrix: Tensor, *, precision: Precision = "exact") -> Tensor:
    """The singular values of a 2-D `matrix` of any float dtype: fp64, descending, min(n, m) of them.

    `exact`: fp64 Gram matrix and eigensolver. `single`: the same in fp32, three to four times cheaper. With u the
    unit roundoff (2⁻⁵³, 2⁻²⁴) and n the short side every eigenvalue is within n·u·λ₁ of the truth (Weyl's bound on a
    backward error of that size), so σᵢ is within n·u·σ₁²/σᵢ: `exact` at n = 2048 has a value of σ₁/1000 right to 3e-7
    of itself. Values under `resolution` cannot be told from zero by this way and are returned as zero. For `single`
    see also `uncertainty`. A wide matrix is turned tall first: LAPACK's own values of a wide one cost up to six times
    more.

    Raises `ValueError` for anything but a finite 2-D matrix, or another precision.
    """
    if matrix.ndim != 2:
        raise ValueError(f"a matrix has two dimensions, not {matrix.ndim}")
    if precision not in GRADES:
        raise ValueError(f"there is no precision {precision!r}")
    if matrix.numel() == 0:
        return torch.zeros(0, dtype=torch.float64)
    product, scale = gram(matrix, grade=GRADES[precision])
    eigenvalues = torch.linalg.eigvalsh(product).flip(0).to(torch.float64)
    floor = resolution(matrix.shape, sigma_1=1.0, precision=precision) ** 2 * float(eigenvalues[0])
    resolved = torch.where(eigenvalues > floor, eigenvalues, 0.0)
    return resolved.sqrt_().mul_(scale).cpu()


def resolution(
    shape: torch.Size | tuple[int, ...], *, sigma_1: float, precision: Precision = "exact"
) -> float:
    """The size below which a singular value is not told from zero: σ₁·√(n·u) for `exact`, σ₁·√u for `single`."""
    n = min(shape) if precision == "exact" else 1
    return sigma_1 * math.sqrt(n * ROUNDOFF[precision])


def uncertainty(values: Tensor, *, precision: Precision) -> Tensor:
    """The expected error of each singular value, in its own unit: fp64, as many as there are `values`.

    The rounding of a product and an eigensolver acts as a random symmetric perturbation of norm about 2u·λ₁, u the
    unit roundoff; by its randomness one eigenvalue feels 1/√n of that (first order), which moves σᵢ by u·λ₁/(σᵢ√n), or
    by the root of what the eigenvalue feels at the most near zero.
    """
    if not values.numel():
        return values
    felt = 2 * ROUNDOFF[precision] * float(values[0]) ** 2 / math.sqrt(values.numel())
    return (felt / (2 * values.clamp(min=1e-300))).clamp(max=math.sqrt(felt))


def flops(shape: torch.Size | tuple[int, ...]) -> float:
    """The arithmetic of one spectrum, n²m + n³ with n the short side: what progress is counted in."""
    short, long = sorted(shape)
    return float(short * short * long + short**3)
