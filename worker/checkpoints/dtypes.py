"""Safetensors dtype tags and torch's dtypes."""

import torch

from app.errors import Code, SpearError
from app.hub.headers import TensorInfo

TORCH_DTYPES: dict[str, torch.dtype] = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "U16": torch.uint16, "I16": torch.int16,
    "U32": torch.uint32, "I32": torch.int32, "U64": torch.uint64, "I64": torch.int64,
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "C64": torch.complex64,
    "F8_E5M2": torch.float8_e5m2, "F8_E4M3": torch.float8_e4m3fn,
}  # fmt: skip
TAGS = {dtype: tag for tag, dtype in TORCH_DTYPES.items()}
MERGEABLE = frozenset({"F64", "F32", "F16", "BF16"})
"""What arithmetic is done on; everything else is carried over as it is."""


def torch_dtype(tensor: TensorInfo) -> torch.dtype:
    """The torch dtype of a stored tensor; raises `SpearError(DTYPE_UNSUPPORTED)` naming file and tensor."""
    try:
        return TORCH_DTYPES[tensor.dtype]
    except KeyError:
        raise SpearError(
            Code.DTYPE_UNSUPPORTED, f"{tensor.file}: {tensor.name} is stored as {tensor.dtype}, which is not supported",
            file=tensor.file, tensor=tensor.name, dtype=tensor.dtype,
        ) from None
