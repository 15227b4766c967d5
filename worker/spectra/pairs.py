"""Gram matrices of bf16 matrices by the processor's own products of bf16 pairs, summed in fp32.

One instruction multiplies sixteen pairs and adds them to sixteen fp32 sums; nothing is rounded but the sums. The
columns are packed 256 rows at a time into panels of 32, two rows' entries in one word, and both factors of a tile are
read from these. Twice as fast as fp32 products, which have to be widened first. Source of the scheme: Goto and van de
Geijn, "Anatomy of High-Performance Matrix Multiplication" (ACM TOMS 34, 2008). All is in this one file, because
numba's cache notices changes of the file that it compiles, not of others.
"""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from llvmlite import ir
from numba import carray, types  # type: ignore[attr-defined]
from numba.core import cgutils
from numba.extending import intrinsic
from torch import Tensor

from worker.compiled import call, compiled
from worker.spectra.room import Room, taken

ROWS = 256
"""of the long side in one run of an fp32 sum: longer ones drift"""
TALL, WIDE, LANES = 8, 32, 16
"""a tile's rows and columns, 16 sums of 32 bits in one register"""
PARTS = WIDE // LANES


class _BFloat(ir.Type):  # type: ignore[misc]
    """LLVM's type, which the library has no word for."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


_FLOAT, _WORD, _LONG = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_SUMS, _WORDS, _PAIRS = ir.VectorType(_FLOAT, LANES), ir.VectorType(_WORD, LANES), ir.VectorType(_BFloat(), 2 * LANES)
_pointer = cast(
    "Callable[..., Any]",
    intrinsic(
        lambda _typing, _value: (
            types.voidptr(types.uint64),
            lambda _context, builder, _signature, values: builder.inttoptr(values[0], ir.IntType(8).as_pointer()),
        )
    ),
)


@cast("Callable[..., Any]", intrinsic)
def _tile(typing: Any, left: Any, right: Any, count: Any, out: Any, stride: Any) -> Any:  # noqa: ARG001, PLR0917  (numba's protocol)
    """`out` (8 x 32 fp32 at this address, rows `stride` apart) += leftᵀ right over `count` pairs of rows.

    `left` and `right` are addresses in panels: rows of 32 words, of which the first 8 and all are taken.
    """

    def emit(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        left, right, count, out, stride = values
        columns, rows = builder.inttoptr(left, _WORD.as_pointer()), builder.inttoptr(right, _WORDS.as_pointer())
        nothing = ir.Constant(_SUMS, [0.0] * LANES)
        room: Any = cgutils.alloca_once_value
        sums = [[room(builder, nothing) for _ in range(PARTS)] for _ in range(TALL)]
        with cgutils.for_range(builder, count) as loop:
            _accumulate(builder, sums, columns, rows, loop.index)
        place = builder.inttoptr(out, _FLOAT.as_pointer())
        for i, row in enumerate(sums):
            start = builder.bitcast(builder.gep(place, [builder.mul(stride, _LONG(i))]), _SUMS.as_pointer())
            for part, total in enumerate(row):
                at = builder.gep(start, [_LONG(part)])
                builder.store(builder.fadd(builder.load(at, align=4), builder.load(total)), at, align=4)

    return types.void(types.uint64, types.uint64, types.int64, types.uint64, types.int64), emit


def _accumulate(builder: Any, sums: Any, columns: Any, rows: Any, index: Any) -> None:
    """One pair of rows: each of the 8 words of `columns` with all 32 of `rows`."""
    kind = ir.FunctionType(_SUMS, [_SUMS, _PAIRS, _PAIRS])
    add = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx512bf16.dpbf16ps.512")  # type: ignore[no-untyped-call]
    first, empty = builder.mul(index, _LONG(PARTS)), ir.Constant(_WORDS, ir.Undefined)
    right = [builder.load(builder.gep(rows, [builder.add(first, _LONG(part))]), align=64) for part in range(PARTS)]
    for i, row in enumerate(sums):
        word = builder.load(builder.gep(columns, [builder.add(builder.mul(index, _LONG(WIDE)), _LONG(i))]))
        one = builder.insert_element(empty, word, _WORD(0))
        left = builder.bitcast(builder.shuffle_vector(one, empty, ir.Constant(_WORDS, [0] * LANES)), _PAIRS)
        for total, part in zip(row, right, strict=True):
            builder.store(builder.call(add, [builder.load(total), left, builder.bitcast(part, _PAIRS)]), total)


@compiled
def _pack_rows(entries: Any, start: Any, stop: Any, down: Any, columns: Any, panels: Any, words: Any) -> None:  # noqa: PLR0917
    """As `_pack`, of rows whose entries lie one behind the other: these are paired first, in `words`."""
    pairs, width = (stop - start + 1) // 2, words.size
    for pair in range(pairs):
        first = (start + 2 * pair) * down
        upper = entries[first : first + width]
        if start + 2 * pair + 1 < stop:
            lower = entries[first + down : first + down + width]
            for j in range(width):
                words[j] = np.uint32(upper[j]) | np.uint32(np.uint32(lower[j]) << np.uint32(16))
        else:
            for j in range(width):
                words[j] = np.uint32(upper[j])
        for number in range(panels.shape[0]):
            row, some = panels[number, pair], columns[number * WIDE : (number + 1) * WIDE]
            for j in range(some.size):
                row[j] = words[some[j]]


@compiled
def _pack(entries: Any, start: Any, stop: Any, strides: Any, columns: Any, panels: Any) -> None:  # noqa: PLR0917  (numba's functions take no names)
    """The rows from `start` to `stop`, in pairs, into `panels` (count, ROWS / 2, 32), zeros beyond the last column."""
    down, along = strides
    whole = (stop - start) // 2
    for number in range(panels.shape[0]):
        panel, low = panels[number], number * WIDE
        for j in range(min(WIDE, columns.size - low)):
            at = start * down + columns[low + j] * along
            for pair in range(whole):
                upper, lower = entries[at], entries[at + down]
                panel[pair, j] = np.uint32(upper) | np.uint32(np.uint32(lower) << np.uint32(16))
                at += 2 * down
            if start + 2 * whole < stop:
                panel[whole, j] = np.uint32(entries[at])


@compiled
def _gram(address: Any, size: Any, rows: Any, strides: Any, columns: Any, panels: Any, out: Any) -> None:  # noqa: PLR0917
    """Adds the product of `columns` with themselves to the lower triangle of `out`, by tiles."""
    entries = carray(_pointer(address), (size,), np.uint16)
    base, place = np.uint64(panels.ctypes.data), np.uint64(out.ctypes.data)
    panel, stride = np.uint64(panels.shape[1] * WIDE * 4), out.shape[1]
    down, along = strides
    words = np.empty(columns.max() + 1, dtype=np.uint32)
    for start in range(0, rows, ROWS):
        stop = min(rows, start + ROWS)
        pairs = (stop - start + 1) // 2
        if along == 1:
            _pack_rows(entries, start, stop, down, columns, panels, words)
        else:
            _pack(entries, start, stop, strides, columns, panels)
        for number in range(panels.shape[0]):
            low = number * WIDE
            right = base + np.uint64(number) * panel
            for i in range(low, out.shape[0], TALL):
                left = base + np.uint64(i // WIDE) * panel + np.uint64(i % WIDE * 4)
                _tile(left, right, pairs, place + np.uint64((i * stride + low) * 4), stride)


def gram_of_pairs(
    tall: Tensor, *, columns: Tensor | None = None, out: Tensor | None = None, room: Room | None = None
) -> Tensor:
    """XᵀX of a bf16 matrix on the CPU, X being the `columns` (int64; all by default) of `tall` in their order.

    fp32, of which only the lower triangle holds the product; in `out` (zeros) where that is given, else in the block
    `square` of the `room`, or new. Beside the result, memory is 512 bytes a column.
    """
    chosen = torch.arange(tall.shape[1]) if columns is None else columns
    count = len(chosen)
    number = -(-count // WIDE)
    words = torch.zeros(number * ROWS // 2 * WIDE + LANES, dtype=torch.int32).numpy().view(np.uint32)
    words = words[-words.ctypes.data % 64 // 4 :]
    panels = words[: number * ROWS // 2 * WIDE].reshape(number, ROWS // 2, WIDE)
    fits = out is not None and len(out) == number * WIDE
    side = (number * WIDE, number * WIDE)
    found = out if fits and out is not None else taken(room, "square", side, torch.float32, device=tall.device).zero_()
    strides = tall.stride()
    size = 1 + sum((length - 1) * step for length, step in zip(tall.shape, strides, strict=True))
    call(_gram, np.uint64(tall.data_ptr()), size, tall.shape[0], strides, chosen.numpy(), panels, found.numpy())
    if out is not None:
        return out if fits else out.copy_(found[:count, :count])
    return found if count == len(found) else found[:count, :count].contiguous()


def load() -> None:
    """Compiles the loops, or loads them from the disk."""
    gram_of_pairs(torch.zeros(2, 1, dtype=torch.bfloat16))
