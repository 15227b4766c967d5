"""Instructions of the processor that numba has no word for, as LLVM writes them.

What is changed here reaches code that is kept on the disk only when `loops.py` changes too.
"""

from collections.abc import Callable
from typing import Any, cast

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

BLOCK = 2048
LANES = 32


def _one_instruction(source: Any, result: Any, emit: Callable[[Any, Any], Any]) -> Any:
    """A function of one number that is one or two instructions, which numba has no word for."""

    @intrinsic
    def instruction(typing: Any, value: Any) -> Any:  # noqa: ARG001  (numba's protocol)
        return result(source), lambda _context, builder, _signature, values: emit(builder, values[0])

    return instruction


_HALF, _FLOAT, _SHORT, _WORD = ir.HalfType(), ir.FloatType(), ir.IntType(16), ir.IntType(32)
pointer = _one_instruction(
    types.uint64, types.voidptr, lambda builder, value: builder.inttoptr(value, ir.IntType(8).as_pointer())
)
bits_of = _one_instruction(types.float32, types.uint32, lambda builder, value: builder.bitcast(value, _WORD))
float_of = _one_instruction(types.uint32, types.float32, lambda builder, value: builder.bitcast(value, _FLOAT))
from_half = _one_instruction(
    types.uint16, types.float32, lambda builder, value: builder.fpext(builder.bitcast(value, _HALF), _FLOAT)
)
to_half = _one_instruction(
    types.float32, types.uint16, lambda builder, value: builder.bitcast(builder.fptrunc(value, _HALF), _SHORT)
)


@cast("Callable[..., Any]", intrinsic)
def fma(typing: Any, a: Any, b: Any, c: Any) -> Any:  # noqa: ARG001
    """a · b + c, rounded once."""
    signature = types.float32(types.float32, types.float32, types.float32)
    return signature, lambda _context, builder, _signature, values: builder.fma(*values)


@cast("Callable[..., Any]", intrinsic)
def inner(typing: Any, one: Any, other: Any, sums: Any) -> Any:  # noqa: ARG001
    """Three inner products of rows of BLOCK fp32 numbers, given by address: LANES fp64 sums of each, in a row.

    Products are exact in fp64, so only the order of additions matters: element i goes to lane i mod LANES.
    """
    wide = ir.VectorType(ir.DoubleType(), LANES)

    def emit(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        rows = [builder.inttoptr(value, ir.VectorType(_FLOAT, LANES).as_pointer()) for value in values[:2]]
        nothing = ir.Constant(wide, [0.0] * LANES)
        totals = [cgutils.alloca_once_value(builder, nothing) for _ in range(3)]  # type: ignore[no-untyped-call]
        with cgutils.for_range(builder, ir.Constant(ir.IntType(64), BLOCK // LANES)) as loop:
            x, y = (builder.fpext(builder.load(builder.gep(row, [loop.index]), align=4), wide) for row in rows)
            for total, (left, right) in zip(totals, ((x, x), (y, y), (x, y)), strict=True):
                product = builder.fmul(left, right, flags=("contract",))  # exact, so fused or not is the same
                builder.store(builder.fadd(product, builder.load(total), flags=("contract",)), total)
        place = builder.inttoptr(values[2], wide.as_pointer())
        for number, total in enumerate(totals):
            at = builder.gep(place, [ir.Constant(ir.IntType(64), number)])
            builder.store(builder.load(total), at, align=8)

    return types.void(types.uint64, types.uint64, types.uint64), emit
