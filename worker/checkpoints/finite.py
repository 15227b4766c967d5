"""Looking for NaN and infinities by the exponent's bits: one pass over integers, faster than float comparisons."""

import torch

from worker.methods.base import Workspace

_BITS: dict[torch.dtype, tuple[torch.dtype, int, int]] = {
    torch.bfloat16: (torch.int16, 0x7FFF, 0x7F80),
    torch.float16: (torch.int16, 0x7FFF, 0x7C00),
    torch.float32: (torch.int32, 0x7FFFFFFF, 0x7F800000),
    torch.float64: (torch.int64, 0x7FFFFFFFFFFFFFFF, 0x7FF0000000000000),
}
"""per dtype: the integer of its width, the mask that clears the sign, the first magnitude that is not finite"""


def is_finite(chunk: torch.Tensor, work: Workspace) -> bool:
    """Whether every element is finite; anything but fp64, fp32, fp16 and bf16 is."""
    if chunk.dtype not in _BITS or chunk.numel() == 0:
        return True
    integer, mask, limit = _BITS[chunk.dtype]
    magnitudes = work.take("finite", chunk.numel(), integer)
    torch.bitwise_and(chunk.view(integer), mask, out=magnitudes)
    return int(magnitudes.max()) < limit
