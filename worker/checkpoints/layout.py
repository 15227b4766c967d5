"""Where every output tensor will lie, decided before the first byte is written.

Tensors go into shards in natural order of their names (layer 2 before layer 10), whatever the inputs' sharding was, so
the same merge always gives the same files. Within a shard wider dtypes come first: that keeps every tensor aligned.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

from app.hub.headers import DTYPE_BITS, LENGTH_BYTES, TensorInfo

METADATA = {"format": "pt"}
ALIGNMENT = 8
FRAME_BYTES = 128  # more than the length, the metadata and the padding take
ENTRY_BYTES = 120  # more than one header entry takes beside its name: two offsets, dtype, shape, punctuation


@dataclass(frozen=True)
class Shard:
    """One output file: `head` is its first bytes (length and header), `size` the bytes of the whole file."""

    file: str
    head: bytes
    tensors: tuple[TensorInfo, ...]
    size: int


Wanted = tuple[str, str, tuple[int, ...]]
"""name, safetensors dtype tag, shape"""


def lay_out(
    tensors: Iterable[Wanted], *, max_shard_bytes: int, metadata: Mapping[str, str] = METADATA
) -> tuple[Shard, ...]:
    """The output's shards. No file passes `max_shard_bytes`, header included, unless one tensor alone does."""
    groups = _groups(sorted(tensors, key=lambda tensor: natural_key(tensor[0])), limit=max_shard_bytes)
    total = len(groups)
    names = ["model.safetensors"] if total == 1 else [f"model-{i:05}-of-{total:05}.safetensors" for i in _from_1(total)]
    return tuple(_shard(name, group, metadata=metadata) for name, group in zip(names, groups, strict=True))


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Sorts `layers.2` before `layers.10`; no two names are equal."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"([0-9]+)", name))], name


def index_text(shards: tuple[Shard, ...]) -> str:
    """The text of model.safetensors.index.json."""
    weight_map = {tensor.name: shard.file for shard in shards for tensor in shard.tensors}
    total = sum(tensor.nbytes for shard in shards for tensor in shard.tensors)
    ordered = {name: weight_map[name] for name in sorted(weight_map, key=natural_key)}
    return json.dumps({"metadata": {"total_size": total}, "weight_map": ordered}, indent=2) + "\n"


def _from_1(count: int) -> range:
    return range(1, count + 1)


def _groups(tensors: list[Wanted], *, limit: int) -> list[list[Wanted]]:
    groups: list[list[Wanted]] = [[]]
    taken = FRAME_BYTES
    for tensor in tensors:
        size = size_of(tensor) + len(json.dumps(tensor[0])) + ENTRY_BYTES
        if groups[-1] and taken + size > limit:
            groups.append([])
            taken = FRAME_BYTES
        groups[-1].append(tensor)
        taken += size
    return groups


def size_of(tensor: Wanted) -> int:
    """The tensor's bytes in the file."""
    return prod(tensor[2]) * DTYPE_BITS[tensor[1]] // 8


def _shard(file: str, group: list[Wanted], *, metadata: Mapping[str, str]) -> Shard:
    ordered = sorted(group, key=lambda tensor: -DTYPE_BITS[tensor[1]])  # stable: the names' order stays
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    at = 0
    for name, dtype, shape in ordered:
        nbytes = size_of((name, dtype, shape))
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + nbytes]}
        at += nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    head = len(text).to_bytes(LENGTH_BYTES, "little") + text
    return Shard(file, head, _placed(ordered, file=file, start=len(head)), len(head) + at)


def _placed(ordered: list[Wanted], *, file: str, start: int) -> tuple[TensorInfo, ...]:
    placed = []
    for name, dtype, shape in ordered:
        placed.append(TensorInfo(name, dtype, tuple(shape), file, start, size_of((name, dtype, shape))))
        start += placed[-1].nbytes
    return tuple(placed)
