"""Weighted sums of chunks: the last step of every method that is linear in its inputs."""

from collections.abc import Sequence

import torch

from worker.methods.base import Workspace


def blend(
    work: Workspace, parts: Sequence[torch.Tensor], coefficients: Sequence[float], *, out: torch.Tensor
) -> None:
    """`out = Σ coefficients[i] · parts[i]`, in fp32 with one rounding into `out`'s dtype."""
    total = out if out.dtype == torch.float32 else work.take("blend.total", len(out))
    torch.mul(work.load("blend.part", parts[0]), coefficients[0], out=total)
    for part, coefficient in zip(parts[1:], coefficients[1:], strict=True):
        total.add_(work.load("blend.part", part), alpha=coefficient)
    if total is not out:
        out.copy_(total)
