"""Compiled loops over blocks that stay in the first cache: one pass over memory, where torch's operations take several.

Each statement is one fp32 operation of the torch path, in its order, so the bits are the same: no fast mathematics, no
contraction, and a fused multiply-add where torch has one (`add` with `alpha`). All of it but the instructions is in
this one file, because numba's cache notices changes of the file that it compiles, not of others.

Models are given as (address, kind): one compilation serves all dtypes and any number of experts. Blocks of the models
and of what is computed are rows of `rows`, float32 of (experts + 3, BLOCK): the experts', the sign, the sum, the base.
"""

from typing import Any

import numpy as np
from numba import carray  # type: ignore[attr-defined]

from worker.compiled import compiled
from worker.methods.fused.instructions import bits_of, float_of, fma, from_half, inner, pointer, survey, to_half
from worker.methods.fused.plan import BLOCK, KEEP_ALL, LANES, PAIRED, PLAIN, POSITIVE, VECTOR

BF16, F16, F32 = 0, 1, 2
CLEAR_SIGN = np.uint32(0x7FFFFFFF)
TINY = np.float32(1e-30)
SMALLEST_NORMAL = np.float32(2.0**-126)
ZERO, HALF, ONE = np.float32(0), np.float32(0.5), np.float32(1)
NOT_A_NUMBER = np.float32(np.nan)
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MIX1, MIX2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
LOW15 = np.uint16(0x7FFF)


@compiled
def _load(address: Any, kind: Any, at: Any, block: Any) -> None:
    """`block` = the model's elements from `at` on, as fp32: exact."""
    size = block.size
    if kind == BF16:
        short = carray(pointer(address), (at + size,), np.uint16)[at:]
        for i in range(size):
            block[i] = float_of(np.uint32(np.uint32(short[i]) << np.uint32(16)))
    elif kind == F16:
        half = carray(pointer(address), (at + size,), np.uint16)[at:]
        for i in range(size):
            block[i] = from_half(half[i])
    else:
        whole = carray(pointer(address), (at + size,), np.float32)[at:]
        for i in range(size):
            block[i] = whole[i]


@compiled
def _store(address: Any, kind: Any, at: Any, block: Any) -> None:
    """The output's elements from `at` on = `block`, rounded once, to nearest, ties to even; NaN stays NaN."""
    size = block.size
    if kind == BF16:
        short = carray(pointer(address), (at + size,), np.uint16)[at:]
        for i in range(size):
            word = bits_of(block[i])
            odd = np.uint32(np.uint32(word >> np.uint32(16)) & np.uint32(1))
            rounded = np.uint32(np.uint32(np.uint32(word + np.uint32(0x7FFF)) + odd) >> np.uint32(16))
            short[i] = np.uint16(rounded) if block[i] == block[i] else np.uint16(0x7FC0)
    elif kind == F16:
        half = carray(pointer(address), (at + size,), np.uint16)[at:]
        for i in range(size):
            half[i] = to_half(block[i])
    else:
        whole = carray(pointer(address), (at + size,), np.float32)[at:]
        for i in range(size):
            whole[i] = block[i]


@compiled
def _subtract(block: Any, base: Any) -> Any:
    """`block` - `base`, in place; the largest pattern of a magnitude, which tells NaN and infinity."""
    largest = np.int32(0)
    for i in range(block.size):
        block[i] = block[i] - base[i]
        largest = max(largest, np.int32(bits_of(block[i]) & CLEAR_SIGN))
    return largest


@compiled
def _trim(block: Any, threshold: Any, left: Any) -> Any:
    """Keeps magnitudes above the threshold, and the first `left` that equal it; how many equals are left to keep."""
    pattern = np.int32(bits_of(threshold))
    limit, equal = np.int32(pattern + np.int32(left <= 0)), np.int32(0)
    for i in range(block.size):
        magnitude = np.int32(bits_of(block[i]) & CLEAR_SIGN)
        equal = np.int32(equal + np.int32(magnitude == pattern))
        block[i] = block[i] if magnitude >= limit else ZERO
    if equal <= left or left <= 0:
        return max(left - equal, 0)
    place = 0
    while left > 0:
        left -= int(abs(block[place]) == threshold)
        place += 1
    rest = block[place:]
    for i in range(rest.size):
        rest[i] = rest[i] if abs(rest[i]) > threshold else ZERO
    return left


@compiled
def _mask(block: Any, key: Any, limit: Any, start: Any, words: Any) -> None:
    """Zeroes what the words of the stream `key` do not keep (`worker.methods.counter`): 15 bits below `limit`.

    `start` is the block's place in the tensor, `words` uint64 of BLOCK / 2.
    """
    first = np.uint64(start // 4)
    bits = words.view(np.uint16)[start % 4 :]
    for i in range((block.size + start % 4 + 3) // 4):
        word = np.uint64(key + (first + np.uint64(i + 1)) * GOLDEN)
        word = (word ^ (word >> np.uint64(30))) * MIX1
        word = (word ^ (word >> np.uint64(27))) * MIX2
        words[i] = word ^ (word >> np.uint64(31))
    for i in range(block.size):
        block[i] = block[i] if np.uint16(bits[i] & LOW15) < limit else ZERO


@compiled
def _thin(block: Any, e: Any, start: Any, thresholds: Any, left: Any, keys: Any, limits: Any, words: Any) -> None:
    """Expert `e`'s δ̂ of δ, in place: trimmed where it has a threshold, masked where it has limits."""
    if thresholds[e] > 0:
        left[e] = _trim(block, thresholds[e], left[e])
    for level in range(keys.shape[1]):
        if limits[e, level] < KEEP_ALL:
            _mask(block, keys[e, level], np.uint16(limits[e, level]), start, words)


@compiled
def _eight(block: Any, i: Any, step: Any) -> Any:
    """The sum of eight magnitudes, `step` elements apart, that folding in halves three times adds up at place `i`."""
    first = (_wide(block[i]) + _wide(block[i + 4 * step])) + (_wide(block[i + 2 * step]) + _wide(block[i + 6 * step]))
    i += step
    other = (_wide(block[i]) + _wide(block[i + 4 * step])) + (_wide(block[i + 2 * step]) + _wide(block[i + 6 * step]))
    return first + other


@compiled
def _wide(value: Any) -> Any:
    """The magnitude in fp64."""
    return np.float64(abs(value))


@compiled
def _magnitude(block: Any, sums: Any) -> Any:
    """The sum of the magnitudes in fp64, by folding in halves: an order of additions that no processor changes.

    `block` is whole, zeros where nothing is; `sums` is float64 of BLOCK / 8. The first three folds are one pass.
    """
    half = BLOCK // 8
    for i in range(half):
        sums[i] = _eight(block, i, half)
    while half > 1:
        half //= 2
        lower, upper = sums[:half], sums[half : 2 * half]
        for i in range(half):
            lower[i] += upper[i]
    return sums[0]


@compiled
def _divide(rows: Any, total: Any, weights: Any, how: Any) -> None:
    """`total` over the sum of the weights of what counts; destroys the experts' rows."""
    size = total.size
    divisor = rows[0][:size]
    for i in range(size):
        divisor[i] = (ONE if divisor[i] > ZERO else ZERO) * weights[0]
    for e in range(1, weights.size):
        row, weight = rows[e][:size], weights[e]
        for i in range(size):
            divisor[i] = fma(ONE if row[i] > ZERO else ZERO, weight, divisor[i])
    for i in range(size):
        if how == POSITIVE:
            by = TINY if divisor[i] < TINY else divisor[i]  # noqa: FURB136  (a choice, not a call)
        else:
            by = divisor[i] + ((-ONE if divisor[i] != ZERO else -ZERO) + ONE)
        total[i] = total[i] / by


@compiled
def _add_up(rows: Any, count: Any, total: Any) -> None:
    """`total` = the sum of the experts' rows, from left to right."""
    first, second = rows[0][: total.size], rows[1][: total.size]
    for i in range(total.size):
        total[i] = first[i] + second[i]
    for e in range(2, count):
        row = rows[e][: total.size]
        for i in range(total.size):
            total[i] = total[i] + row[i]


@compiled
def _weigh(rows: Any, factors: Any, size: Any) -> None:
    """The experts' rows times their factors, in place."""
    for e in range(factors.size):
        row, factor = rows[e][:size], factors[e]
        for i in range(size):
            row[i] = row[i] * factor


@compiled
def _sign(total: Any) -> Any:
    """The elected sign of a sum; a sum of zero elects plus."""
    moved = total + SMALLEST_NORMAL
    return (ONE if moved > ZERO else ZERO) - (ONE if moved < ZERO else ZERO)


@compiled
def _agreeing(value: Any, sign: Any) -> Any:
    """The magnitude of what has the elected sign, else zero."""
    signed = value * sign
    return ZERO if signed < ZERO else signed  # noqa: FURB136  (-0 and NaN stay, as in torch)


@compiled
def _elect_two(first: Any, second: Any, base: Any, halves: Any, scale: Any) -> None:
    """`_elect` of two experts in one pass; `halves` where both count: they are of one weight."""
    for i in range(base.size):
        sign = _sign(first[i] + second[i])
        one, other = _agreeing(first[i], sign), _agreeing(second[i], sign)
        total = one + other
        if halves:
            total = total + (-HALF * total if min(one, other) > ZERO else ZERO)
        base[i] = fma(total * sign, scale, base[i])


@compiled
def _elect(rows: Any, base: Any, weights: Any, how: Any, scale: Any) -> None:
    """`base` += scale · the sum of what has the elected sign (`TaskVectorMethod._elected`)."""
    count, size = weights.size, base.size
    sign, total = rows[count][:size], rows[count + 1][:size]
    _add_up(rows, count, sign)
    for i in range(size):
        sign[i] = _sign(sign[i])
    for e in range(count):
        row = rows[e][:size]
        for i in range(size):
            row[i] = _agreeing(row[i], sign[i])
    _add_up(rows, count, total)
    if how != PLAIN:
        _divide(rows, total, weights, how)
    for i in range(size):
        base[i] = fma(total[i] * sign[i], scale, base[i])


@compiled
def _sum(rows: Any, base: Any, factors: Any) -> None:
    """`base` += Σ factor · δ̂ (`TaskVectorMethod._summed`)."""
    size = base.size
    first = rows[0][:size]
    for i in range(size):
        first[i] = first[i] * factors[0]
    for e in range(1, factors.size):
        row, factor = rows[e][:size], factors[e]
        for i in range(size):
            first[i] = fma(row[i], factor, first[i])
    for i in range(size):
        base[i] = base[i] + first[i]


@compiled
def merge(
    size: Any, start: Any, models: Any, kinds: Any, rows: Any, words: Any, thresholds: Any, left: Any, keys: Any,
    limits: Any, factors: Any, weights: Any, elects: Any, how: Any, alike: Any, scale: Any,
) -> Any:
    """One chunk: thinned, mixed, added to the base, rounded. The largest pattern of a magnitude of a δ.

    `models` are the base's address, the experts' and the output's.
    """  # fmt: skip
    count, largest, weighed = factors.size, np.int32(0), how not in (PLAIN, PAIRED)
    for at in range(0, size, BLOCK):
        length = min(BLOCK, size - at)
        base = rows[count + 2][:length]
        _load(models[0], kinds[0], at, base)
        for e in range(count):
            delta = rows[e][:length]
            _load(models[e + 1], kinds[e + 1], at, delta)
            largest = max(largest, _subtract(delta, base))
            _thin(delta, e, start + at, thresholds, left, keys, limits, words)
        if elects and not alike:
            _weigh(rows, factors, length)
        if elects and count == 2 and not weighed:
            _elect_two(rows[0][:length], rows[1][:length], base, how == PAIRED, np.float32(scale))
        elif elects:
            _elect(rows, base, weights, how, np.float32(scale))
        else:
            _sum(rows, base, factors)
        _store(models[count + 1], kinds[count + 1], at, base)
    return largest


@compiled
def norms(
    size: Any, start: Any, models: Any, kinds: Any, rows: Any, words: Any, thresholds: Any, left: Any, keys: Any,
    limits: Any, sums: Any,
) -> None:
    """The survey of norms: `sums` (experts, 2) get the magnitudes of one chunk, before and after thinning."""
    count, folded = sums.shape[0], words.view(np.float64)
    for at in range(0, size, BLOCK):
        length = min(BLOCK, size - at)
        base = rows[count + 2][:length]
        _load(models[0], kinds[0], at, base)
        for e in range(count):
            delta = rows[e][:length]
            _load(models[e + 1], kinds[e + 1], at, delta)
            _subtract(delta, base)
            rows[e][length:] = ZERO
            sums[e, 0] += _magnitude(rows[e], folded)
            _thin(delta, e, start + at, thresholds, left, keys, limits, words)
            sums[e, 1] += _magnitude(rows[e], folded)


@compiled
def rank(
    size: Any, models: Any, kinds: Any, rows: Any, wanted: Any, lows: Any, highs: Any, found: Any, counts: Any
) -> Any:
    """The survey of ranks, for each bracket (of expert `wanted`): what it counts and collects is told by `survey`.

    `counts` is (brackets, 4), `found` (brackets, `size` + VECTOR or more). Returns the largest pattern of a magnitude.
    """
    largest, count = np.int32(0), rows.shape[0] - 3
    for at in range(0, size, BLOCK):
        length = min(BLOCK, size - at)
        vectors = (length + VECTOR - 1) // VECTOR
        beyond = vectors * VECTOR - length
        base, done = rows[count + 2][:length], -1
        _load(models[0], kinds[0], at, base)
        for number in range(wanted.size):
            row = rows[wanted[number]]
            if wanted[number] != done:
                done = wanted[number]
                _load(models[done + 1], kinds[done + 1], at, row[:length])
                largest = max(largest, _subtract(row[:length], base))
                row[length : length + beyond] = NOT_A_NUMBER
            counted, place = counts[number], found[number, counts[number, 3] :]
            survey(
                np.uint64(row.ctypes.data), vectors, np.uint32(lows[number]), np.uint32(highs[number]),
                np.uint64(place.ctypes.data), np.uint64(counted.ctypes.data),
            )  # fmt: skip
            counted[0] -= beyond  # what is not a number is above every bracket
    return largest


@compiled
def products(size: Any, models: Any, kinds: Any, rows: Any, sums: Any, found: Any) -> None:
    """Adds the inner products of a chunk of two models to `found`: of the first with itself, of the second, of both.

    `rows` is float32 of (2, BLOCK) or more, `sums` float64 of 3 LANES or more.
    """
    for at in range(0, size, BLOCK):
        length = min(BLOCK, size - at)
        for m in range(2):
            _load(models[m], kinds[m], at, rows[m][:length])
            rows[m][length:] = ZERO
        inner(np.uint64(rows[0].ctypes.data), np.uint64(rows[1].ctypes.data), np.uint64(sums.ctypes.data))
        for number in range(3):
            lanes, half = sums[number * LANES :], LANES
            while half > 1:
                half //= 2
                for i in range(half):
                    lanes[i] += lanes[half + i]
            found[number] += lanes[0]


@compiled
def _interpolate(one: Any, other: Any, weight: Any) -> None:
    """`one` = the point between both at `weight`, from the nearer end: torch's `lerp`, a fused multiply-add."""
    if abs(weight) < HALF:
        for i in range(one.size):
            one[i] = fma(weight, other[i] - one[i], one[i])
    else:
        rest = weight - ONE
        for i in range(one.size):
            one[i] = fma(rest, other[i] - one[i], other[i])


@compiled
def blend(size: Any, models: Any, kinds: Any, rows: Any, factors: Any, lerp: Any) -> None:
    """Σ factor · model, or where `lerp` is set the point between two; `models` are theirs and the output's address."""
    count = factors.size
    for at in range(0, size, BLOCK):
        length = min(BLOCK, size - at)
        total, row = rows[0][:length], rows[1][:length]
        _load(models[0], kinds[0], at, total)
        if lerp:
            _load(models[1], kinds[1], at, row)
            _interpolate(total, row, factors[1])
        else:
            for i in range(length):
                total[i] = total[i] * factors[0]
            for e in range(1, count):
                _load(models[e], kinds[e], at, row)
                factor = factors[e]
                for i in range(length):
                    total[i] = fma(row[i], factor, total[i])
        _store(models[count], kinds[count], at, total)
