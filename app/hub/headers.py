"""Safetensors headers and indexes: the one parser for both sides. Pure: no I/O, no Hub client.

Format: https://github.com/huggingface/safetensors#format. A file is 8 bytes (little-endian length of the header),
the JSON header, then one buffer in which the tensors lie without overlap or hole.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from app.errors import Code, SpearError
from app.hub.strictjson import MAX_VALUES, parse_object, shown

LENGTH_BYTES = 8
MAX_NAME = 512
MAX_DIMENSIONS = 32
MAX_DIMENSION = 2**48
MAX_OFFSET = 2**63
HEADER_DEPTH = 4

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
    """Length of the JSON header in bytes, from the file's first 8; `limit` in bytes.

    Raises `SpearError(HEADER_TOO_LARGE)`, and `SpearError(HEADER_INVALID)` where there is none.
    """
    if len(first8) != LENGTH_BYTES:
        raise _invalid(f"{file} is shorter than a safetensors header", file=file)
    size = int.from_bytes(first8, "little")
    if size > limit:
        words = f"{file} announces a header of {size} bytes; {limit} are allowed"
        raise SpearError(Code.HEADER_TOO_LARGE, words, file=file, limit="max_header_bytes")
    if size < 2:
        raise _invalid(f"{file} announces a header of {size} bytes", file=file)
    return size


def parse_header(
    raw: bytes, *, file: str, file_size: int, max_tensors: int, max_name: int = MAX_NAME, max_values: int = MAX_VALUES
) -> dict[str, TensorInfo]:
    """The tensors of one file by name, in the order in which they lie in it.

    `raw` is the JSON text without the 8 length bytes; `file_size` is that of the whole file; names have `max_name`
    characters at the most. Raises `SpearError` naming the file, and the tensor where there is one: `HEADER_INVALID`,
    `TENSOR_OVERLAP`, `TENSOR_HOLE`, `LIMIT_EXCEEDED`.
    """
    if not raw.startswith(b"{"):
        raise _invalid(f"the header of {file} does not begin with '{{'", file=file)
    entries = parse_object(raw, code=Code.HEADER_INVALID, file=file, max_depth=HEADER_DEPTH, max_values=max_values)
    _check_metadata(entries.pop("__metadata__", {}), file=file)
    if len(entries) > max_tensors:
        words = f"{file} holds {len(entries)} tensors; {max_tensors} are allowed"
        raise SpearError(Code.LIMIT_EXCEEDED, words, file=file, limit="max_tensors")
    start = LENGTH_BYTES + len(raw)
    tensors = [_tensor(name, entry, file=file, start=start, max_name=max_name) for name, entry in entries.items()]
    tensors.sort(key=lambda tensor: (tensor.offset, tensor.nbytes))
    _check_layout(tensors, file=file, start=start, end=file_size)
    return {tensor.name: tensor for tensor in tensors}


def parse_index(
    raw: bytes, *, file: str, files: Collection[str], max_name: int = MAX_NAME, max_values: int = MAX_VALUES
) -> dict[str, str]:
    """The index's weight map: tensor name to shard; `files` are the repository's paths.

    Raises `SpearError` naming the index, the tensor and the shard at fault: `INDEX_INVALID`, `UNSAFE_PATH`,
    `SHARD_MISSING`, `LIMIT_EXCEEDED`.
    """
    weight_map = parse_object(raw, code=Code.INDEX_INVALID, file=file, max_values=max_values).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise _bad_index(f"{file} has no weight_map", file=file)
    folded: dict[str, str] = {}
    for name, shard in weight_map.items():
        _check_name(name, code=Code.INDEX_INVALID, file=file, limit=max_name)
        _check_shard(shard, tensor=name, file=file)
        if shard not in files:
            words = f"{file} says that {name} lies in {shard}, which is not in the repository"
            raise SpearError(Code.SHARD_MISSING, words, file=file, tensor=name, shard=shard)
        other = folded.setdefault(shard.casefold(), shard)
        if other != shard:
            words = f"{file} names {other} and {shard}, which are one file where case does not count"
            raise _bad_index(words, file=file, tensor=name, shard=shard)
    return weight_map


def merge_shards(
    shards: Mapping[str, Mapping[str, TensorInfo]], *, index: Mapping[str, str], file: str
) -> dict[str, TensorInfo]:
    """The tensors of all shards (by file name), in the order of the index's shards and then of their bytes.

    `file` names the index in messages. Raises `SpearError(DUPLICATE_TENSOR)` for a tensor in two shards, and
    `SpearError(INDEX_INVALID)` wherever shards and index disagree.
    """
    merged: dict[str, TensorInfo] = {}
    for shard, tensors in shards.items():
        for name, tensor in tensors.items():
            if name in merged:
                words = f"{name} lies in both {merged[name].file} and {shard}"
                raise SpearError(Code.DUPLICATE_TENSOR, words, file=shard, tensor=name, shard=merged[name].file)
            if index.get(name) != shard:
                raise _bad_index(f"{name} lies in {shard}, but {file} says {index.get(name)}", file=file, tensor=name)
            merged[name] = tensor
    for name, shard in index.items():
        if name not in merged:
            raise _bad_index(f"{file} says that {name} lies in {shard}; it does not", file=file, tensor=name)
    return merged


def _tensor(name: str, entry: Any, *, file: str, start: int, max_name: int) -> TensorInfo:
    _check_name(name, code=Code.HEADER_INVALID, file=file, limit=max_name)
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _invalid(f"{file}: {name} needs exactly dtype, shape and data_offsets", file=file, tensor=name)
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise _invalid(f"{file}: {name} has the unknown dtype {shown(dtype)!r}", file=file, tensor=name)
    if not _counts(shape) or len(shape) > MAX_DIMENSIONS or any(size > MAX_DIMENSION for size in shape):
        raise _invalid(f"{file}: {name} has a shape that is not possible", file=file, tensor=name)
    if not _counts(offsets) or len(offsets) != 2 or not offsets[0] <= offsets[1] < MAX_OFFSET:
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
            overlaps = tensor.offset < reached
            code = Code.TENSOR_OVERLAP if overlaps else Code.TENSOR_HOLE
            fault = "overlaps the tensor before it" if overlaps else "comes after a hole"
            raise SpearError(code, f"{file}: {tensor.name} {fault}", file=file, tensor=tensor.name)
        reached += tensor.nbytes
        if reached > end:
            raise _invalid(f"{file}: {tensor.name} reaches beyond the end of the file", file=file, tensor=tensor.name)
    if reached != end:
        last = {"tensor": tensors[-1].name} if tensors else {}
        words = f"{file} has {end - reached} bytes at its end that belong to no tensor"
        raise SpearError(Code.TENSOR_HOLE, words, file=file, **last)


def _check_metadata(metadata: Any, *, file: str) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _invalid(f"the __metadata__ of {file} must map strings to strings", file=file)


def _check_shard(shard: Any, *, tensor: str, file: str) -> None:
    """A shard is a plain file name: what could lead out of the repository is refused as just that."""
    if not isinstance(shard, str):
        raise _bad_index(f"{file} maps {tensor} to {shown(shard)!r}, not to a file", file=file, tensor=tensor)
    if set(shard) & set("/\\:\0") or shard.startswith("."):
        words = f"{file} maps {tensor} to {shown(shard)!r}, not to a safetensors file beside it"
        raise SpearError(Code.UNSAFE_PATH, words, file=file, tensor=tensor, shard=shown(shard))
    if not shard.endswith(".safetensors") or not shard.isprintable():
        words = f"{file} maps {tensor} to {shown(shard)!r}, not to a safetensors file beside it"
        raise _bad_index(words, file=file, tensor=tensor)


def _check_name(name: str, *, code: Code, file: str, limit: int) -> None:
    # isprintable also refuses lone surrogates, which JSON can spell and UTF-8 cannot
    if not name or len(name) > limit or not name.isprintable():
        raise SpearError(code, f"{file} has a tensor name that is empty, too long or unprintable: {name[:80]!r}",
                         file=file, tensor=ascii(name[:80]))


def _counts(value: Any) -> bool:
    """Whether this is a list of whole numbers, none negative. `True` is an int to Python, not to us."""
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _invalid(message: str, **names: str) -> SpearError:
    return SpearError(Code.HEADER_INVALID, message, **names)


def _bad_index(message: str, **names: str) -> SpearError:
    return SpearError(Code.INDEX_INVALID, message, **names)
