"""The Gram matrix on the short side of a weight matrix, in fp64, within bounded memory."""

from itertools import pairwise

import torch
from torch import Tensor

ROWS = 1024  # rows of the long side converted at once: a block of 1024 x n in fp64
TILES = 4  # the symmetric product is formed in this many column tiles: 5/8 of the multiplications of a plain product


def gram(matrix: Tensor) -> tuple[Tensor, float]:
    """`(XᵀX, scale)` of a 2-D `matrix`, where X is the matrix turned tall (m x n, m >= n) and divided by `scale`.

    Returns an n x n fp64 tensor with both triangles filled. `scale` is a power of two near the largest entry, so the
    division is exact and no square over- or underflows; it is 1 for a zero matrix. Beside the result, memory is one
    block of 1024 x n in fp64. Products of bf16, fp16 and fp32 inputs are rounded in fp64 only.
    """
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    scale = _power_of_two(matrix)
    n = tall.shape[1]
    result = torch.zeros(n, n, dtype=torch.float64, device=matrix.device)
    edges = [round(n * i / TILES) for i in range(TILES + 1)]
    for start in range(0, tall.shape[0], ROWS):
        block = tall[start : start + ROWS].to(torch.float64).div_(scale)
        for low, high in pairwise(edges):
            result[low:high, :high].addmm_(block[:, low:high].T, block[:, :high])
    return _mirror(result, edges=edges), scale


def _mirror(lower: Tensor, *, edges: list[int]) -> Tensor:
    """Copy the tiles below the diagonal to above it."""
    for low, high in pairwise(edges):
        lower[:low, low:high] = lower[low:high, :low].T
    return lower


def _power_of_two(matrix: Tensor) -> float:
    """The power of two at or below the largest absolute entry; 1 for a zero matrix.

    Raises `ValueError` for NaN or infinite entries (`aminmax` hands NaN on).
    """
    low, high = torch.aminmax(matrix)
    largest = max(abs(float(low)), abs(float(high)))
    if not largest < float("inf"):
        raise ValueError("the matrix has NaN or infinite entries")
    return 2.0 ** (torch.frexp(torch.tensor(largest, dtype=torch.float64)).exponent.item() - 1) if largest else 1.0
