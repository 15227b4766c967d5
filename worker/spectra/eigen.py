"""Eigenvalues of Gram matrices, in place: what LAPACK does where memory and the last digits count.

`torch.linalg.eigvalsh` copies its argument and, for fp32, solves the tridiagonal matrix in fp32 too, which is where
most of its error arises (measured 3 to 8 times as much as here on weight-like matrices of 1024 to 2048 columns).
The tridiagonal matrix is solved in fp64: by compiled bisection (`worker.spectra.tridiagonal`), small ones by `sterf`.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import lapack
from threadpoolctl import ThreadpoolController
from torch import Tensor

REDUCTIONS: dict[Any, tuple[Callable[..., Any], Callable[..., Any]]] = {
    np.dtype(np.float32): (lapack.ssytrd, lapack.ssytrd_lwork),
    np.dtype(np.float64): (lapack.dsytrd, lapack.dsytrd_lwork),
}
SMALLEST_BISECTED = 512
"""Columns from which bisection is used: below, loading it would cost more than it saves."""
TOLERANCE = {np.dtype(np.float32): 2.0**-40, np.dtype(np.float64): 1e-15}
"""of an eigenvalue, over the norm: far below what rounding in the Gram matrix moves it by (2u/√n)"""


def eigenvalues(grams: Tensor) -> Tensor:
    """The eigenvalues of symmetric matrices (n x n, or k x n x n): fp64, falling along the last axis, on the CPU.

    Only the lower triangles are read. **`grams` is overwritten** on the CPU, so that no second matrix is needed: there
    each is brought to tridiagonal form in its own dtype (fp32 or fp64, LAPACK `sytrd`) and that is solved in fp64. On
    CUDA all k go to cuSOLVER at once. Raises `ArithmeticError` where the iteration does not end.
    """
    if grams.is_cuda:
        values: Tensor = torch.linalg.eigvalsh(grams, UPLO="L")
        return values.to(torch.float64).cpu().flip(-1)
    every = grams if grams.ndim == 3 else grams.unsqueeze(0)
    with blas_threads():
        found = torch.stack([_of_one(each) for each in every]) if len(every) else every.new_zeros(every.shape[:2])
    return found.to(torch.float64).reshape(grams.shape[:-1])


def _of_one(gram: Tensor) -> Tensor:
    """Of one contiguous n x n matrix. Its transpose is what LAPACK calls a matrix by columns: the triangles swap."""
    if len(gram) == 1:  # nothing beside the diagonal, which the wrapper of `sytrd` does not allow
        return gram[0].to(torch.float64)
    columns = gram.contiguous().numpy().T
    reduce, workspace = REDUCTIONS[columns.dtype]
    size, _ = workspace(len(columns), lower=0)
    _, diagonal, beside, _, fault = reduce(columns, lower=0, lwork=int(size), overwrite_a=1)
    values, stuck = _solved(diagonal, beside)
    if fault or stuck:
        raise ArithmeticError(f"the eigenvalues of a matrix of {len(columns)} columns did not converge")
    return torch.from_numpy(np.ascontiguousarray(values[::-1]))


def _solved(diagonal: NDArray[Any], beside: NDArray[Any]) -> tuple[NDArray[np.float64], int]:
    """The eigenvalues of a tridiagonal matrix, rising, and LAPACK's word on whether it found all."""
    numbers = diagonal.astype(np.float64), beside.astype(np.float64)
    finite = np.isfinite(numbers[0]).all() and np.isfinite(numbers[1]).all()
    if len(diagonal) < SMALLEST_BISECTED or find_spec("numba") is None or not finite:
        values, stuck = lapack.dsterf(*numbers)
        return values, int(stuck)
    from worker.spectra.tridiagonal import tridiagonal_eigenvalues  # noqa: PLC0415  (half a second: for those who need it)

    return tridiagonal_eigenvalues(*numbers, tolerance=TOLERANCE[diagonal.dtype]), 0


def blas_threads() -> AbstractContextManager[object]:
    """While this lasts, SciPy's own threads are as many as torch's."""
    limit: AbstractContextManager[object] = _controller().limit(limits=torch.get_num_threads(), user_api="blas")
    return limit


@lru_cache(maxsize=1)
def _controller() -> ThreadpoolController:
    """Looked up once: that takes a millisecond or two."""
    return ThreadpoolController()
