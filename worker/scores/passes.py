"""Compiled passes over two matrices: norms and differences while a block is in the first cache, no wider copies.

Entries are given as their bits, of bf16 (uint16) or fp32 (uint32), and widened to fp32, which is exact. All is in this
one file, because numba's cache notices changes of the file that it compiles, not of others.
"""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from torch import Tensor

from worker.compiled import call, compiled

BLOCK = 2048
LANES = 16
SUMS = 4
SHIFTS = {torch.bfloat16: (torch.uint16, 16), torch.float32: (torch.uint32, 0)}
"""how an entry's bits are seen, and how far they stand below those of an fp32 number"""

_WIDE, _ROW = ir.VectorType(ir.DoubleType(), LANES), ir.VectorType(ir.FloatType(), LANES)
_BITS = ir.VectorType(ir.IntType(32), LANES)


@cast("Callable[..., Any]", intrinsic)
def _add(typing: Any, base: Any, adapted: Any, totals: Any) -> Any:  # noqa: ARG001  (numba's protocol)
    """Adds b², a², (a - b)² and the square of a's power of two to four times 16 fp64 `totals`, in that order.

    `base` and `adapted` are addresses of BLOCK fp32 numbers. Products of fp32 numbers are exact in fp64.
    """

    def emit(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        rows = [builder.inttoptr(value, _ROW.as_pointer()) for value in values[:2]]
        place = builder.inttoptr(values[2], _WIDE.as_pointer())
        at = [builder.gep(place, [ir.Constant(ir.IntType(64), number)]) for number in range(SUMS)]
        held = [cgutils.alloca_once_value(builder, builder.load(each, align=8)) for each in at]  # type: ignore[no-untyped-call]
        mask = ir.Constant(_BITS, [0x7F800000] * LANES)
        with cgutils.for_range(builder, ir.Constant(ir.IntType(64), BLOCK // LANES)) as loop:
            one, two = (builder.load(builder.gep(row, [loop.index]), align=4) for row in rows)
            power = builder.bitcast(builder.and_(builder.bitcast(two, _BITS), mask), _ROW)
            base, adapted, power = (builder.fpext(each, _WIDE) for each in (one, two, power))
            for total, number in zip(held, (base, adapted, builder.fsub(adapted, base), power), strict=True):
                square = builder.fmul(number, number, flags=("contract",))
                builder.store(builder.fadd(square, builder.load(total), flags=("contract",)), total)
        for total, where in zip(held, at, strict=True):
            builder.store(builder.load(total), where, align=8)

    return types.void(types.uint64, types.uint64, types.uint64), emit


@compiled
def _measure(base: Any, adapted: Any, shift: Any, totals: Any) -> None:
    """Adds up all entries of both in `totals` (4 x 16), see `_add`; the last block is filled with zeros."""
    one, two = np.zeros(BLOCK, dtype=np.uint32), np.zeros(BLOCK, dtype=np.uint32)
    for start in range(0, base.size, BLOCK):
        first, second = base[start : start + BLOCK], adapted[start : start + BLOCK]
        for i in range(first.size):
            one[i] = np.uint32(first[i]) << shift
            two[i] = np.uint32(second[i]) << shift
        for i in range(first.size, BLOCK):
            one[i] = two[i] = np.uint32(0)
        _add(np.uint64(one.ctypes.data), np.uint64(two.ctypes.data), np.uint64(totals.ctypes.data))


@compiled
def _subtract(base: Any, adapted: Any, shift: Any, down: Any, along: Any, out: Any) -> None:  # noqa: PLR0917  (numba's functions take no names)
    """`out` = adapted - base of every `down`-th row's every `along`-th entry, in fp32."""
    width = base.shape[1]
    words = np.empty((2, width), dtype=np.uint32)
    numbers = words.view(np.float32)
    for i in range(out.shape[0]):
        first, second, row = base[i * down], adapted[i * down], out[i]
        for j in range(width):
            words[0, j] = np.uint32(first[j]) << shift
            words[1, j] = np.uint32(second[j]) << shift
        one, two = numbers[0], numbers[1]
        for j in range(row.size):
            row[j] = two[j * along] - one[j * along]


def takes(base: Tensor, adapted: Tensor) -> bool:
    """Whether the passes know the matrices: on the CPU, both bf16 or both fp32, one entry behind the other."""
    alike = base.dtype == adapted.dtype and base.dtype in SHIFTS
    return alike and all(each.device.type == "cpu" and each.is_contiguous() for each in (base, adapted))


def measure(base: Tensor, adapted: Tensor) -> list[float]:
    """Σb², Σa², Σ(a - b)² and the sum of the squares of a's powers of two, of two matrices that `takes` knows."""
    totals = np.zeros((SUMS, LANES))
    one, two, shift = _bits(base.reshape(-1), adapted.reshape(-1))
    call(_measure, one, two, shift, totals)
    sums: list[float] = totals.sum(axis=1).tolist()
    return sums


def subtract(base: Tensor, adapted: Tensor, *, down: int, along: int, out: Tensor) -> None:
    """`out` (fp32, contiguous) = every `down`-th row's every `along`-th entry of adapted - base."""
    one, two, shift = _bits(base, adapted)
    call(_subtract, one, two, shift, down, along, out.numpy())


def load() -> None:
    """Compiles the passes over bf16, or loads them from the disk."""
    nothing = torch.zeros(1, 1, dtype=torch.bfloat16)
    measure(nothing, nothing)
    subtract(nothing, nothing, down=1, along=1, out=torch.zeros(1, 1))


def _bits(base: Tensor, adapted: Tensor) -> tuple[Any, Any, Any]:
    kind, shift = SHIFTS[base.dtype]
    return base.view(kind).numpy(), adapted.view(kind).numpy(), np.uint32(shift)
