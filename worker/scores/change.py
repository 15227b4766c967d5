"""How much a tensor was changed by the adaptation."""

import math
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor

CHUNK = 1 << 17  # entries converted to fp64 at once: what fits into a core's cache
SMALLEST_OF_PASSES = 1 << 18
"""Entries from which compiled passes are used: below, loading them would cost more than they save."""
SIGNIFICAND = {torch.bfloat16: 7, torch.float16: 10, torch.float32: 23}  # stored bits behind the leading one


class Sums(NamedTuple):
    """Sums over the entries of two matrices, in fp64: each is finite if and only if the entries are."""

    base: float
    """‖W_b‖², Frobenius"""
    adapted: float
    delta: float
    """‖W_a - W_b‖²"""
    rounding: float
    """Σ ulp²/12 of W_a: the expected square of the rounding that brought its entries into their dtype; 0 for fp64"""


def sums(base: Tensor, adapted: Tensor) -> Sums:
    """By one compiled pass where it knows the matrices, else by torch in chunks: they differ in the last digits."""
    fast = compiled_passes(base, adapted)
    if fast is None:
        return Sums(*squared_norms(base, adapted), rounding_square(adapted))
    one, two, difference, powers = fast.measure(base, adapted)
    return Sums(one, two, difference, _of_powers(powers, dtype=adapted.dtype))


def compiled_passes(base: Tensor, adapted: Tensor) -> Any:
    """The module of compiled passes, where it is worth it and takes these matrices; else None."""
    if base.numel() < SMALLEST_OF_PASSES or find_spec("numba") is None:
        return None
    from worker.scores import passes  # noqa: PLC0415  (half a second: for those who need it)

    return passes if passes.takes(base, adapted) else None


def load_passes() -> None:
    """Loads the compiled passes, once for all processes that are forked after that."""
    if find_spec("numba") is not None:
        from worker.scores.passes import load  # noqa: PLC0415  (half a second: for those who need it)

        load()


def rounding_square(stored: Tensor) -> float:
    """Σ ulp²/12 over the entries; 0 for a dtype wider than fp32."""
    if stored.dtype not in SIGNIFICAND:
        return 0.0
    flat, squares = stored.reshape(-1), 0.0
    for start in range(0, flat.numel(), CHUNK):
        exponents = flat[start : start + CHUNK].to(torch.float32).view(torch.int32) & 0x7F800000
        powers = exponents.view(torch.float32).to(torch.float64)  # 2^e of each entry, 0 for zeros
        squares += float(powers.dot(powers))
    return _of_powers(squares, dtype=stored.dtype)


def _of_powers(squares: float, *, dtype: torch.dtype) -> float:
    return 4.0 ** -SIGNIFICAND[dtype] * squares / 12


def squared_norms(base: Tensor, adapted: Tensor) -> tuple[float, float, float]:
    """`(‖W_b‖², ‖W_a‖², ‖W_a - W_b‖²)`: Frobenius, entries taken to fp64 and summed in fp64 by chunks.

    Each is finite if and only if the tensors' entries are.
    """
    sums = torch.zeros(3, dtype=torch.float64, device=base.device)
    flat_base, flat_adapted = base.reshape(-1), adapted.reshape(-1)
    for start in range(0, flat_base.numel(), CHUNK):
        one = flat_base[start : start + CHUNK].to(torch.float64)
        two = flat_adapted[start : start + CHUNK].to(torch.float64)
        sums[0] += one.dot(one)
        sums[1] += two.dot(two)
        two.sub_(one)
        sums[2] += two.dot(two)
    first, second, third = sums.tolist()
    return first, second, third


def relative_change(*, base_norm: float, delta_norm: float) -> float:
    """‖W_a - W_b‖_F / ‖W_b‖_F; 0 where nothing changed, infinite where a zero tensor was changed."""
    if delta_norm == 0:
        return 0.0
    return delta_norm / base_norm if base_norm > 0 else math.inf


def swci(*, snr: float, relative_change: float) -> float:
    """SNR-weighted change intensity: SNR · relative change (arXiv 2511.08500, reconstructed); 0 without change."""
    return snr * relative_change if relative_change > 0 and snr > 0 else 0.0
