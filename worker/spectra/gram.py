"""Gram matrices on the short side of a weight matrix, in two grades, within bounded memory.

On the CPU by BLAS's product of a matrix with itself, and for bf16 by products of pairs where the processor has them
(`worker.spectra.pairs`); on CUDA, and where a CPU has a unit for bf16 matrices (AMX), by torch's products.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import torch
from scipy.linalg import blas
from torch import Tensor

from worker.processor import renamed
from worker.spectra.eigen import blas_threads
from worker.spectra.room import Room, taken

SMALLEST_OF_PAIRS = 512
"""Short sides from which products of pairs are used: below, loading their loops would cost more than they save."""
MIDDLING = 2.0**-20, 2.0**20
"""Largest entries between which no sum of squares can leave fp32's range, so that nothing has to be scaled."""
SYMMETRIC: dict[torch.dtype, Any] = {torch.float32: blas.ssyrk, torch.float64: blas.dsyrk}


@dataclass(frozen=True, kw_only=True)
class Grade:
    """How a Gram matrix is summed: `dtype` of sums and blocks, `rows` of the long side at once, column `tiles`.

    Of a symmetric product in t tiles only (t + 1)/2t of the multiplications are made.
    """

    dtype: torch.dtype
    rows: int
    tiles: int


DOUBLE = Grade(dtype=torch.float64, rows=128, tiles=8)
SINGLE = Grade(dtype=torch.float32, rows=256, tiles=8)
"""fp32 sums of products that are exact where the inputs are bf16 or fp16. 256 rows: a longer run of one fp32
accumulator in a bf16 product drifts (mean error of values, 2048 x 2048: 1e-6 at 256 rows, 4e-6 at 512)."""


def gram(matrix: Tensor, *, grade: Grade = DOUBLE, room: Room | None = None) -> tuple[Tensor, float]:
    """`(XᵀX, scale)` of a 2-D `matrix`, where X is the matrix turned tall (m x n, m >= n) and divided by `scale`.

    Returns an n x n tensor of the grade's dtype of which **only the lower triangle** holds the product. `scale` is a
    power of two near the largest entry, so the division is exact and no square over- or underflows; it is 1 for a zero
    matrix. Beside the result, memory is one block of rows x n; the result is the block `square` of the `room`, where
    there is one. Raises `ValueError` for NaN or infinite entries.
    """
    tall, scale = turned(matrix), power_of_two(matrix)
    if grade == SINGLE and in_pairs(matrix, scale=scale):
        from worker.spectra.pairs import gram_of_pairs  # noqa: PLC0415  (half a second: for those who need it)

        return gram_of_pairs(tall, room=room), 1.0
    n = tall.shape[1]
    result = taken(room, "square", (n, n), grade.dtype, device=matrix.device).zero_()
    rows = torch.empty(min(grade.rows, tall.shape[0]), n, dtype=grade.dtype, device=matrix.device)
    with products(matrix):
        for block in tall.split(grade.rows):  # type: ignore[no-untyped-call]
            part = rows[: len(block)].copy_(block).mul_(1 / scale)
            add_lower(result, part, tiles=grade.tiles, torchs=by_torch(matrix))
    return result, scale


def in_pairs(matrix: Tensor, *, scale: float) -> bool:
    """Whether its Gram matrix is made of products of pairs, without scaling: bf16 on a CPU that has them."""
    wanted = matrix.dtype == torch.bfloat16 and matrix.device.type == "cpu" and min(matrix.shape) >= SMALLEST_OF_PAIRS
    return wanted and MIDDLING[0] <= scale <= MIDDLING[1] and has_pairs()


def has_pairs() -> bool:
    """Whether this processor has products of bf16 pairs, no unit for whole bf16 matrices, and numba is installed."""
    cpu: Any = torch.cpu
    able = cpu._is_avx512_bf16_supported() and not cpu._is_amx_tile_supported()  # noqa: SLF001  (no public word for it)
    return bool(able) and not renamed() and find_spec("numba") is not None


def load_pairs() -> None:
    """Loads the loops of pairs and of bisection, once for all processes that are forked after that."""
    from worker.spectra import pairs, tridiagonal  # noqa: PLC0415  (half a second: for those who need it)

    pairs.load()
    tridiagonal.load()


def by_torch(matrix: Tensor) -> bool:
    """Whether torch's products are the fastest: on a device, and for bf16 on a CPU with a unit for its matrices."""
    cpu: Any = torch.cpu
    return matrix.is_cuda or bool(matrix.dtype == torch.bfloat16 and cpu._is_amx_tile_supported())  # noqa: SLF001


def products(matrix: Tensor) -> AbstractContextManager[object]:
    """What has to be switched while Gram matrices of such a matrix are summed."""
    if by_torch(matrix):
        return short_products(matrix.dtype)
    return blas_threads() if matrix.device.type == "cpu" else nullcontext()


def add_lower(result: Tensor, block: Tensor, *, tiles: int, torchs: bool = True) -> None:
    """Add the lower triangle of blockᵀ block (rows x n) to `result` (n x n, contiguous).

    By torch in rows of `tiles`, (t + 1)/2t of it; else by BLAS, which sees the transpose of both, so that the lower
    triangle is its upper one.
    """
    if not torchs:
        there = block.is_contiguous()
        turned_over = block.numpy().T if there else block.T.contiguous().numpy().T
        SYMMETRIC[block.dtype](
            1.0, turned_over, beta=1.0, c=result.numpy().T, trans=0 if there else 1, lower=0, overwrite_c=1
        )
        return
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

