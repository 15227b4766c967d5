"""All singular values of a weight matrix, through its Gram matrix on the short side."""

import math
from typing import Literal

import torch
from torch import Tensor

from worker.spectra.eigen import eigenvalues
from worker.spectra.gram import DOUBLE, SINGLE, gram
from worker.spectra.room import Room

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
    held = [matrix]
    del matrix  # `many_values` frees it before the eigensolver, if the caller does not hold it
    return many_values(held, precision=precision)[0]


def many_values(
    matrices: list[Tensor], *, precision: Precision = "exact", room: Room | None = None
) -> list[Tensor]:
    """The singular values of matrices of one shape, as `singular_values` gives them, by one call of the eigensolver.

    Worth it on CUDA, where a small matrix alone leaves the device idle; memory is a Gram matrix for each. The list is
    emptied as the matrices are used up, so that what nobody else holds is freed before the eigensolver begins. A single
    fp32 Gram matrix lies in the `room`, where there is one.
    """
    if precision not in GRADES:
        raise ValueError(f"there is no precision {precision!r}")
    shape = _one_shape(matrices)
    if 0 in shape:
        return [torch.zeros(0, dtype=torch.float64) for _ in matrices]
    products, scales = _products(matrices, precision=precision, room=room)
    squares = eigenvalues(products)
    floors = resolution(shape, sigma_1=1.0, precision=precision) ** 2 * squares[:, :1]
    values = torch.where(squares > floors, squares, 0.0).sqrt_()
    return [each * scale for each, scale in zip(values, scales, strict=True)]


def _products(
    matrices: list[Tensor], *, precision: Precision, room: Room | None
) -> tuple[Tensor, list[float]]:
    """The Gram matrices, k x n x n, and their scales; `matrices` is empty afterwards."""
    found: list[Tensor] = []
    scales: list[float] = []
    place = room if len(matrices) == 1 and precision == "single" else None
    while matrices:
        product, scale = gram(matrices.pop(0), grade=GRADES[precision], room=place)
        found.append(product)
        scales.append(scale)
    return found[0].unsqueeze(0) if len(found) == 1 else torch.stack(found), scales


def _one_shape(matrices: list[Tensor]) -> torch.Size:
    shapes = {matrix.shape for matrix in matrices}
    if len(shapes) != 1:
        raise ValueError(f"the matrices have {len(shapes)} different shapes")
    (shape,) = shapes
    if len(shape) != 2:
        raise ValueError(f"a matrix has two dimensions, not {len(shape)}")
    return shape


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
