"""Gram matrices on the short side of a weight matrix, in two grades, within bounded memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Grade:
    """How a Gram matrix is summed: `dtype` of sums and blocks, `rows` of the long side at once, column `tiles`.

    Of a symmetric product in t tiles only (t + 1)/2t of the multiplications are made.
    """

    dtype: torch.dtype
    rows: int
    tiles: int


DOUBLE = Grade(dtype=torch.float64, rows=256, tiles=8)
SINGLE = Grade(dtype=torch.float32, rows=256, tiles=8)
"""fp32 sums of products that are exact where the inputs are bf16 or fp16. 256 rows: a longer run of one fp32
accumulator in a bf16 product drifts (mean error of values, 2048 x 2048: 1e-6 at 256 rows, 4e-6 at 512)."""


def gram(matrix: Tensor, *, grade: Grade = DOUBLE) -> tuple[Tensor, float]:
    """`(XᵀX, scale)` of a 2-D `matrix`, where X is the matrix turned tall (m x n, m >= n) and divided by `scale`.

    Returns an n x n tensor of the grade's dtype of which **only the lower triangle** holds the product. `scale` is a
    power of two near the largest entry, so the division is exact and no square over- or underflows; it is 1 for a zero
    matrix. Beside the result, memory is one block of rows x n. Raises `ValueError` for NaN or infinite entries.
    """
    tall, scale = turned(matrix), power_of_two(matrix)
    n = tall.shape[1]
    result = torch.zeros(n, n, dtype=grade.dtype, device=matrix.device)
    room = torch.empty(min(grade.rows, tall.shape[0]), n, dtype=grade.dtype, device=matrix.device)
    with short_products(matrix.dtype):
        for block in tall.split(grade.rows):  # type: ignore[no-untyped-call]
            part = room[: len(block)].copy_(block).mul_(1 / scale)
            add_lower(result, part, tiles=grade.tiles)
    return result, scale


def add_lower(result: Tensor, block: Tensor, *, tiles: int) -> None:
    """Add the lower triangle of blockᵀ block (rows x n) to `result` (n x n), in rows of `tiles`: (t + 1)/2t of it."""
    edges = [round(result.shape[0] * i / tiles) for i in range(tiles + 1)]
    for low, high in pairwise(edges):
        result[low:high, :high].addmm_(block[:, low:high].T, block[:, :high])


def turned(matrix: Tensor) -> Tensor:
    """The matrix or its transpose, whichever is not wide. A view."""
    return matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T


def power_of_two(matrix: Tensor) -> float:
    """The power of two at or below the largest absolute entry; 1 for a zero matrix.

    Raises `ValueError` for NaN or infinite entries (`aminmax` hands NaN on).
    """
    low, high = torch.aminmax(matrix)
    largest = max(abs(float(low)), abs(float(high)))
    if not largest < float("inf"):
        raise ValueError("the matrix has NaN or infinite entries")
    if largest == 0:
        return 1.0
    exponent = int(torch.frexp(torch.tensor(largest, dtype=torch.float64)).exponent) - 1
    return float(2.0 ** max(exponent, -126))  # its inverse is a normal fp32 number


@contextmanager
def short_products(dtype: torch.dtype) -> Iterator[None]:
    """While this lasts, fp32 products whose factors came from bf16 use the bf16 units; the switch is put back.

    The factors hold bf16 numbers times a power of two, so nothing is rounded but the fp32 sums. On processors without
    such units the switch changes nothing, and on CUDA it allows TF32, which holds bf16 numbers exactly too.
    """
    before = torch.get_float32_matmul_precision()
    if dtype == torch.bfloat16:
        torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)

