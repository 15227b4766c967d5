"""Weighted sums of chunks: the last step of every method that is linear in its inputs."""

from collections.abc import Sequence

import torch

from worker.methods.base import Workspace


def blend(
    work: Workspace, parts: Sequence[torch.Tensor], coefficients: Sequence[float], *, out: torch.Tensor
) -> None:
    """`out = Σ coefficients[i] · parts[i]`, in fp32 with one rounding into `out`'s dtype."""
    if _is_lerp(parts, coefficients, out=out):
        torch.lerp(parts[0], parts[1], coefficients[1], out=out)
        return
    total = out if out.dtype == torch.float32 else work.take("blend.total", len(out))
    total.copy_(parts[0]).mul_(coefficients[0])
    for part, coefficient in zip(parts[1:], coefficients[1:], strict=True):
        total.add_(work.load("blend.part", part), alpha=coefficient)
    if total is not out:
        out.copy_(total)


def _is_lerp(parts: Sequence[torch.Tensor], coefficients: Sequence[float], *, out: torch.Tensor) -> bool:
    """Whether torch's fused interpolation does: it computes 16-bit tensors in fp32 and rounds once, in one pass."""
    if len(parts) != 2 or {parts[0].dtype, parts[1].dtype} != {out.dtype} or out.dtype == torch.float64:
        return False
    return min(coefficients) >= 0 and abs(sum(coefficients) - 1) < 1e-12
