"""Weighted sums of chunks: the last step of every method that is linear in its inputs."""

from collections.abc import Sequence

import torch

from worker.methods.base import Spec, Workspace

LOADING = 0.65
"""Seconds that loading the compiled loops takes."""


def prepare_blends(work: Workspace, specs: Sequence[Spec], *, saved: float) -> None:
    """Loads the compiled loops where so much is merged that they pay; `saved` is what they save, ns per element."""
    elements = sum(spec.elements for spec in specs if not spec.parameters.get("compat"))
    if elements * saved * 1e-9 > LOADING and work.engine:
        work.engine.load_blends()


def blend(
    work: Workspace, parts: Sequence[torch.Tensor], coefficients: Sequence[float], *, out: torch.Tensor
) -> None:
    """`out = Σ coefficients[i] · parts[i]`, in fp32 with one rounding into `out`'s dtype."""
    lerp = _is_lerp(parts, coefficients, out=out)
    if work.loaded and work.loaded.knows(*parts, out):
        work.loaded.blend(parts, coefficients, out, lerp=lerp)
        return
    if lerp:
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
