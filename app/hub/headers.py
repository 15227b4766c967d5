"""Safetensors headers and indexes: the one parser for both sides. Pure: no I/O, no Hub client.

Format: https://github.com/huggingface/safetensors#format. A file is 8 bytes (little-endian length of the header),
the JSON header, then one buffer in which the tensors lie without overlap or hole.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from app.errors import Code, SpearError
from app.hub.strictjson import parse_object

LENGTH_BYTES = 8
MAX_NAME = 512
MAX_DIMENSIONS = 32
MAX_DIMENSION = 2**48

DTYPE_BITS: dict[str, int] = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "C64": 64,
    "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip
"""Bits of one element, for every dtype tag that safetensors 0.8 knows."""


@dataclass(frozen=True)
class TensorInfo:
    """Where one tensor lies: `offset` is absolute in `file`, in bytes; `dtype` is the safetensors tag (`BF16`)."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: str
    offset: int
    nbytes: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


def header_size(first8: bytes, *, file: str, limit: int) -> int:
    """Length of the JSON header in bytes, from the file's first 8; `limit` in bytes."""
    if len(first8) != LENGTH_BYTES:
        raise _invalid(f"{file} is shorter than a safetensors header", file=file)
    size = int.from_bytes(first8, "little")
    if size > limit:
        raise SpearError(
            Code.LIMIT_EXCEEDED, f"{file} announces a header of {size} bytes; {limit} are allowed", file=file
        )
    if size < 2:
        raise _invalid(f"{file} announces a header of {size} bytes", file=file)
    return size


def parse_header(raw: bytes, *, file: str, file_size: int, max_tensors: int) -> dict[str, TensorInfo]:
    """The tensors of one file by name, in the order in which they lie in it.

    `raw` is the JSON text without the 8 length bytes; `file_size` is that of the whole file.
    Raises `SpearError(HEADER_INVALID)` or `SpearError(LIMIT_EXCEEDED)` naming the file and the tensor.
    """
    if not raw.startswith(b"{"):
        raise _invalid(f"the header of {file} does not begin with '{{'", file=file)
    entries = parse_object(raw, code=Code.HEADER_INVALID, file=file, max_depth=4)
    _check_metadata(entries.pop("__metadata__", {}), file=file)
    if len(entries) > max_tensors:
        raise SpearError(
            Code.LIMIT_EXCEEDED, f"{file} holds {len(entries)} tensors; {max_tensors} are allowed", file=file
        )
    start = LENGTH_BYTES + len(raw)
    tensors = [_tensor(name, entry, file=file, start=start) for name, entry in entries.items()]
    tensors.sort(key=lambda tensor: (tensor.offset, tensor.nbytes))
    _check_layout(tensors, file=file, start=start, end=file_size)
    return {tensor.name: tensor for tensor in tensors}


def parse_index(raw: bytes, *, file: str, files: Collection[str]) -> dict[str, str]:
    """The index's weight map: tensor name to shard; `files` are the repository's paths.

    Raises `SpearError(INDEX_INVALID)` naming the index, and the tensor or shard at fault.
    """
    weight_map = parse_object(raw, code=Code.INDEX_INVALID, file=file).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise _bad_index(f"{file} has no weight_map", file=file)
    for name, shard in weight_map.items():
        _check_name(name, code=Code.INDEX_INVALID, file=file)
        if not isinstance(shard, str) or not _plain(shard):
            raise _bad_index(f"{file} maps {name} to {str(shard)[:200]!r}, not to a safetensors file beside it",
                             file=file, tensor=name)
        if shard not in files:
            raise _bad_index(f"{file} names {shard}, which is not in the repository", file=file, shard=shard)
    return weight_map


def merge_shards(
    shards: Mapping[str, Mapping[str, TensorInfo]], *, index: Mapping[str, str], file: str
) -> dict[str, TensorInfo]:
    """The tensors of all shards (by file name), in the order of the index's shards and then of their bytes.

    `file` names the index in messages. Raises `SpearError(INDEX_INVALID)` for a tensor in two shards, and wherever
    shards and index disagree.
    """
    merged: dict[str, TensorInfo] = {}
    for shard, tensors in shards.items():
        for name, tensor in tensors.items():
            if name in merged:
                raise _bad_index(f"{name} lies in both {merged[name].file} and {shard}", file=file, tensor=name)
            if index.get(name) != shard:
                raise _bad_index(f"{name} lies in {shard}, but {file} says {index.get(name)}", file=file, tensor=name)
            merged[name] = tensor
    for name, shard in index.items():
        if name not in merged:
            raise _bad_index(f"{file} says that {name} lies in {shard}; it does not", file=file, tensor=name)
    return merged


def _tensor(name: str, entry: Any, *, file: str, start: int) -> TensorInfo:
    _check_name(name, code=Code.HEADER_INVALID, file=file)
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _invalid(f"{file}: {name} needs exactly dtype, shape and data_offsets", file=file, tensor=name)
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise _invalid(f"{file}: {name} has the unknown dtype {str(dtype)[:40]!r}", file=file, tensor=name)
    if not _counts(shape) or len(shape) > MAX_DIMENSIONS or any(size > MAX_DIMENSION for size in shape):
        raise _invalid(f"{file}: {name} has a shape that is not possible", file=file, tensor=name)
    if not _counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _invalid(f"{file}: {name} has data_offsets that are not possible", file=file, tensor=name)
    begin, end = offsets
    bits, taken = math.prod(shape) * DTYPE_BITS[dtype], end - begin
    if bits != taken * 8:
        needed = -(-bits // 8)
        raise _invalid(f"{file}: {name} has {taken} bytes, but {dtype} {shape} needs {needed}", file=file, tensor=name)
    return TensorInfo(name, dtype, tuple(shape), file, start + begin, end - begin)


def _check_layout(tensors: list[TensorInfo], *, file: str, start: int, end: int) -> None:
    reached = start
    for tensor in tensors:
        if tensor.offset != reached:
            fault = "overlaps the tensor before it" if tensor.offset < reached else "comes after a hole"
            raise _invalid(f"{file}: {tensor.name} {fault}", file=file, tensor=tensor.name)
        reached += tensor.nbytes
        if reached > end:
            raise _invalid(f"{file}: {tensor.name} reaches beyond the end of the file", file=file, tensor=tensor.name)
    if reached != end:
        raise _invalid(f"{file} has {end - reached} bytes that belong to no tensor", file=file)


def _check_metadata(metadata: Any, *, file: str) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _invalid(f"the __metadata__ of {file} must map strings to strings", file=file)


def _check_name(name: str, *, code: Code, file: str) -> None:
    # isprintable also refuses lone surrogates, which JSON can spell and UTF-8 cannot
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise SpearError(code, f"{file} has a tensor name that is empty, too long or unprintable: {name[:80]!r}",
                         file=file, tensor=ascii(name[:80]))


def _counts(value: Any) -> bool:
    """Whether this is a list of whole numbers, none negative. `True` is an int to Python, not to us."""
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _plain(name: str) -> bool:
    return name.endswith(".safetensors") and not name.startswith(".") and not set(name) & set("/\\:\0")


def _invalid(message: str, **names: str) -> SpearError:
    return SpearError(Code.HEADER_INVALID, message, **names)


def _bad_index(message: str, **names: str) -> SpearError:
    return SpearError(Code.INDEX_INVALID, message, **names)
