"""All eigenvalues of a symmetric tridiagonal matrix by bisection, many of them at once in the processor's lanes.

LAPACK's `sterf` walks along the matrix with two divisions that wait for each other at every step: at 512 columns it
costs as much as bringing the matrix to tridiagonal form. Here the eigenvalues below a point are counted by the signs of
the leading minors (Givens 1954; Wilkinson, "The Algebraic Eigenvalue Problem", 1965, chapter 5), which takes no
division, for 32 points side by side. All is in this one file: numba's cache notices changes of the compiled file only.
"""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from worker.compiled import call, compiled

LANES = 32
RUN = 16
"""minors between two looks at their size: within 16 they neither over- nor underflow"""
SMALLEST = 1e-30
"""square of the least element beside the diagonal, of a norm of 1: moves an eigenvalue by less than 2e-15"""

_DOUBLE, _LONG = ir.DoubleType(), ir.IntType(64)
_POINTS, _COUNTS = ir.VectorType(_DOUBLE, LANES), ir.VectorType(_LONG, LANES)


@cast("Callable[..., Any]", intrinsic)
def _below(typing: Any, diagonal: Any, squares: Any, runs: Any, points: Any, counts: Any) -> Any:  # noqa: ARG001, PLR0917  (numba's protocol)
    """`counts` (32 int64 at this address) = how many eigenvalues are below each of the 32 `points` (fp64).

    `diagonal` and `squares` (of the element before each) are addresses of `runs` times 16 fp64 numbers.
    """

    def emit(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        diagonal, squares = (builder.inttoptr(value, _DOUBLE.as_pointer()) for value in values[:2])
        shifts = builder.load(builder.inttoptr(values[3], _POINTS.as_pointer()), align=8)
        room: Any = cgutils.alloca_once_value
        one, nothing = ir.Constant(_POINTS, [1.0] * LANES), ir.Constant(_POINTS, [0.0] * LANES)
        held = [room(builder, one), room(builder, nothing), room(builder, ir.Constant(_COUNTS, [0] * LANES))]
        with cgutils.for_range(builder, values[2]) as loop:
            state = [builder.load(each) for each in held]
            first = builder.mul(loop.index, _LONG(RUN))
            for step in range(RUN):
                at = builder.add(first, _LONG(step))
                numbers = [_spread(builder, builder.load(builder.gep(each, [at]))) for each in (diagonal, squares)]
                state = _next(builder, state, shifts, numbers)
            for place, value in zip(held, _resized(builder, state), strict=True):
                builder.store(value, place)
        out = builder.inttoptr(values[4], _COUNTS.as_pointer())
        builder.store(builder.load(held[2]), out, align=8)

    return types.void(types.uint64, types.uint64, types.int64, types.uint64, types.uint64), emit


def _spread(builder: Any, number: Any) -> Any:
    """The number in every lane."""
    one = builder.insert_element(ir.Constant(_POINTS, ir.Undefined), number, ir.IntType(32)(0))
    return builder.shuffle_vector(
        one, ir.Constant(_POINTS, ir.Undefined), ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    )


def _next(builder: Any, state: Any, shifts: Any, numbers: Any) -> list[Any]:
    """From the minors i and i - 1 to i + 1 and i: (d - x)·pᵢ - e²·pᵢ₋₁; a change of sign is one eigenvalue more."""
    minor, before, counts = state
    diagonal, square = numbers
    fused = {"flags": ("contract",)}
    product = builder.fmul(builder.fsub(diagonal, shifts), minor, **fused)
    after = builder.fsub(product, builder.fmul(square, before), **fused)
    turned = builder.xor(builder.bitcast(minor, _COUNTS), builder.bitcast(after, _COUNTS))
    sign = builder.lshr(turned, ir.Constant(_COUNTS, [63] * LANES))
    return [after, minor, builder.add(counts, sign)]


def _resized(builder: Any, state: Any) -> list[Any]:
    """Both minors over the power of two of the larger one."""
    minor, before, counts = state
    mask = ir.Constant(_COUNTS, [0x7FF0000000000000] * LANES)
    sizes = [builder.and_(builder.bitcast(each, _COUNTS), mask) for each in (minor, before)]
    larger = builder.select(builder.icmp_unsigned(">", *sizes), *sizes)
    inverse = builder.sub(ir.Constant(_COUNTS, [0x7FE0000000000000] * LANES), larger)
    factor = builder.bitcast(inverse, _POINTS)
    return [builder.fmul(minor, factor), builder.fmul(before, factor), counts]


@compiled
def _place_points(low: Any, high: Any, points: Any) -> Any:
    """A point in each lane's bracket, those of equal brackets spread over it; the widest bracket."""
    widest, lane = 0.0, 0
    while lane < LANES:
        stop = lane + 1
        while stop < LANES and low[stop] == low[lane] and high[stop] == high[lane]:
            stop += 1
        width = high[lane] - low[lane]
        for each in range(lane, stop):
            points[each] = low[lane] + width * ((each - lane + 1) / (stop - lane + 1))
        widest, lane = max(widest, width), stop
    return widest


@compiled
def _narrow(first: Any, points: Any, counts: Any, low: Any, high: Any) -> None:
    """What each count says of every lane's eigenvalue, the `first + lane`-th from below."""
    for each in range(LANES):
        point, known = points[each], counts[each] - first
        for lane in range(LANES):
            above = known <= lane
            low[lane] = max(low[lane], point if above else -2.0)
            high[lane] = min(high[lane], 2.0 if above else point)


@compiled
def _bisect(diagonal: Any, squares: Any, size: Any, low_end: Any, tolerance: Any, out: Any) -> None:  # noqa: PLR0917
    """The `size` eigenvalues, rising, into `out`: of a matrix with all of them between `low_end` and 1."""
    low, high, points = np.empty(LANES), np.empty(LANES), np.empty(LANES)
    counts = np.empty(LANES, dtype=np.int64)
    begin = low_end
    for first in range(0, size, LANES):
        low[:], high[:] = begin, 1.0
        while _place_points(low, high, points) > tolerance:
            _below(
                np.uint64(diagonal.ctypes.data), np.uint64(squares.ctypes.data), diagonal.size // RUN,
                np.uint64(points.ctypes.data), np.uint64(counts.ctypes.data),
            )  # fmt: skip
            _narrow(first, points, counts, low, high)
        for lane in range(min(LANES, size - first)):
            out[first + lane] = (low[lane] + high[lane]) / 2
        begin = low[LANES - 1]


def tridiagonal_eigenvalues(
    diagonal: NDArray[np.float64], beside: NDArray[np.float64], *, tolerance: float
) -> NDArray[np.float64]:
    """The eigenvalues, rising, of a symmetric tridiagonal matrix of n numbers and n - 1 beside them; fp64.

    Each is within `tolerance` (at least 1e-15) and a few fp64 roundings of the truth, both times the matrix's norm.
    """
    size = len(diagonal)
    padded = -(-size // RUN) * RUN
    neighbours = np.abs(np.concatenate([[0.0], beside, [0.0]]))
    reach = neighbours[:-1] + neighbours[1:]
    bottom, top = float((diagonal - reach).min()), float((diagonal + reach).max())
    norm = max(-bottom, top)
    if norm == 0:
        return np.zeros(size)
    scaled, squares, found = np.full(padded, 2.0), np.zeros(padded), np.empty(size)
    scaled[:size] = diagonal / norm  # beyond the matrix 2 on the diagonal: above every point, so no sign changes
    squares[1:size] = np.maximum((beside / norm) ** 2, SMALLEST)
    call(_bisect, scaled, squares, size, bottom / norm - tolerance, tolerance, found)
    return np.sort(found) * norm


def load() -> None:
    """Compiles the loops, or loads them from the disk."""
    tridiagonal_eigenvalues(np.ones(2), np.ones(1), tolerance=1e-3)
