"""How much a tensor was changed by the adaptation."""

import math

import torch
from torch import Tensor

CHUNK = 1 << 17  # entries converted to fp64 at once: what fits into a core's cache


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
