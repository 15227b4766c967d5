"""Instructions of the processor that numba has no word for, as LLVM writes them.

What is changed here reaches code that is kept on the disk only when `loops.py` changes too.
"""

from collections.abc import Callable
from typing import Any, cast

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from worker.methods.fused.plan import BLOCK, LANES, VECTOR


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


@cast("Callable[..., Any]", intrinsic)
def survey(  # noqa: PLR0917  (compiled functions have no keywords)
    typing: Any, row: Any, vectors: Any, low: Any, high: Any, found: Any, counts: Any  # noqa: ARG001
) -> Any:
    """Magnitudes of so many vectors of fp32 numbers beside a bracket of patterns, all places given by address.

    Adds to `counts` (four int64) how many are above `high`, are `high`, are `low`, and are between the two; puts the
    patterns of the last, less `low` + 1, into `found` (int32, with room for a vector beyond them). Between patterns
    that are equal or neighbours there is nothing. A vector with finds is rare, and they are moved together by one
    instruction where the processor has it.
    """
    wide, narrow, long = ir.VectorType(_WORD, VECTOR), ir.IntType(VECTOR), ir.IntType(64)
    signature = types.void(types.uint64, types.int64, types.uint32, types.uint32, types.uint64, types.uint64)

    def emit(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        source = builder.inttoptr(values[0], wide.as_pointer())
        target = builder.inttoptr(values[4], _WORD.as_pointer())
        lowest, highest = (_spread(builder, value, wide) for value in values[2:4])
        first = builder.add(lowest, ir.Constant(wide, [1] * VECTOR))
        apart = builder.sub(values[3], values[2])
        room = builder.select(builder.icmp_unsigned(">", apart, _WORD(1)), builder.sub(apart, _WORD(1)), _WORD(0))
        between = _spread(builder, room, wide)
        nothing = ir.Constant(wide, [0] * VECTOR)
        totals = [cgutils.alloca_once_value(builder, nothing) for _ in range(3)]  # type: ignore[no-untyped-call]
        place = cgutils.alloca_once_value(builder, long(0))  # type: ignore[no-untyped-call]
        with cgutils.for_range(builder, values[1]) as loop:
            stored = builder.load(builder.gep(source, [loop.index]), align=4)
            pattern = builder.and_(stored, ir.Constant(wide, [0x7FFFFFFF] * VECTOR))
            kinds = (
                builder.icmp_unsigned(">", pattern, highest), builder.icmp_unsigned("==", pattern, highest),
                builder.icmp_unsigned("==", pattern, lowest),
            )  # fmt: skip
            for total, kind in zip(totals, kinds, strict=True):
                builder.store(builder.sub(builder.load(total), builder.sext(kind, wide)), total)
            offset = builder.sub(pattern, first)
            inside = builder.icmp_unsigned("<", offset, between)
            mask = builder.bitcast(inside, narrow)
            with builder.if_then(builder.icmp_unsigned("!=", mask, narrow(0)), likely=False):
                at = builder.load(place)
                packed = _packed(builder, offset, inside)
                builder.store(packed, builder.bitcast(builder.gep(target, [at]), wide.as_pointer()), align=4)
                builder.store(builder.add(at, builder.zext(builder.ctpop(mask), long)), place)
        sums = [builder.zext(_added_up(builder, builder.load(total)), long) for total in totals]
        slots = builder.inttoptr(values[5], long.as_pointer())
        for number, total in enumerate([*sums, builder.load(place)]):
            slot = builder.gep(slots, [_WORD(number)])
            builder.store(builder.add(builder.load(slot), total), slot)

    return signature, emit


def _spread(builder: Any, value: Any, wide: Any) -> Any:
    """A vector of one number."""
    one = builder.insert_element(ir.Constant(wide, ir.Undefined), value, _WORD(0))
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(_WORD, VECTOR), [0] * VECTOR))


def _packed(builder: Any, vector: Any, chosen: Any) -> Any:
    """The chosen numbers of a vector first, in their order; what follows them is of no meaning."""
    name = f"llvm.experimental.vector.compress.v{VECTOR}i32"
    kind = ir.FunctionType(vector.type, [vector.type, chosen.type, vector.type])
    function = cgutils.get_or_insert_function(builder.module, kind, name)  # type: ignore[no-untyped-call]
    return builder.call(function, [vector, chosen, ir.Constant(vector.type, ir.Undefined)])


def _added_up(builder: Any, vector: Any) -> Any:
    kind = ir.FunctionType(_WORD, [vector.type])
    name = f"llvm.vector.reduce.add.v{VECTOR}i32"
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [vector])  # type: ignore[no-untyped-call]
