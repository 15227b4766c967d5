"""Lazy reading of a safetensors checkpoint: headers first, then bytes into buffers that the caller reuses.

`preadv` into a reused buffer, not a mapping: measured faster (no page faults) and it leaves no pages in the process.
"""

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from app.errors import Code, SpearError
from app.hub.headers import LENGTH_BYTES, TensorInfo, header_size, merge_shards, parse_header, parse_index
from app.hub.strictjson import parse_object
from worker.checkpoints.dtypes import torch_dtype

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
MAX_HEADER_BYTES = 100_000_000
MAX_TENSORS = 200_000


class Checkpoint:
    """One checkpoint on disk, open for reading. `config` is config.json, `tensors` what the headers say."""

    def __init__(
        self, path: Path, *, config: dict[str, Any], tensors: dict[str, TensorInfo], handles: dict[str, int]
    ) -> None:
        self.path = path
        self.config = config
        self.tensors = tensors
        self.bytes_read = 0
        self._handles = handles

    @classmethod
    def open(cls, path: Path) -> Self:
        """Opens all shards and reads their headers, no weights.

        Raises `SpearError` (CONFIG_INVALID, WEIGHTS_MISSING, INDEX_INVALID, HEADER_INVALID, LIMIT_EXCEEDED) naming the
        file and the tensor at fault.
        """
        config = read_config(path)
        index = _read_index(path)
        handles: dict[str, int] = {}
        try:
            shards = {}
            for file in sorted(set(index.values())) if index else [_single(path)]:
                handles[file] = _open(path, file)
                shards[file] = _read_header(handles[file], file=file)
            tensors = merge_shards(shards, index=index, file=INDEX) if index else shards.popitem()[1]
        except BaseException:
            for handle in handles.values():
                os.close(handle)
            raise
        return cls(path, config=config, tensors=tensors, handles=handles)

    def info(self, name: str) -> TensorInfo:
        """What the header says of a tensor; raises `SpearError(TENSOR_MISSING)`."""
        try:
            return self.tensors[name]
        except KeyError:
            raise SpearError(Code.TENSOR_MISSING, f"{self.path.name} has no tensor {name}", tensor=name) from None

    def read(self, name: str) -> torch.Tensor:
        """A whole tensor, in its shape and as stored, in memory of its own."""
        info = self.info(name)
        whole = torch.empty(info.elements, dtype=torch_dtype(info))
        self.read_flat(name, start=0, stop=info.elements, out=whole)
        return whole.reshape(info.shape)

    def read_flat(self, name: str, *, start: int, stop: int, out: torch.Tensor) -> torch.Tensor:
        """Elements `start` to `stop` of the flattened tensor into `out[:stop - start]`, which is returned.

        `out` is contiguous, one-dimensional, of the stored dtype.
        """
        info = self.info(name)
        if out.dtype != torch_dtype(info):
            raise ValueError(f"{name} is stored as {info.dtype}, the buffer is {out.dtype}")
        part = out[: stop - start]
        size = out.element_size()
        self.read_bytes(name, start=start * size, stop=stop * size, out=memory(part))
        return part

    def read_spans(self, name: str, spans: Sequence[tuple[int, int]], *, out: torch.Tensor) -> torch.Tensor:
        """As `read_flat`, of several spans of elements, one behind the other in `out`, of which so much is returned."""
        info, size = self.info(name), out.element_size()
        if out.dtype != torch_dtype(info):
            raise ValueError(f"{name} is stored as {info.dtype}, the buffer is {out.dtype}")
        room, at = memory(out), 0
        for start, stop in spans:
            end = at + (stop - start) * size
            self.read_bytes(name, start=start * size, stop=stop * size, out=room[at:end])
            at = end
        return out[: at // size]

    def read_bytes(self, name: str, *, start: int, stop: int, out: memoryview) -> None:
        """Bytes `start` to `stop` of the tensor's data into `out`, which is exactly so long."""
        info = self.info(name)
        handle, at, end = self._handles[info.file], info.offset + start, info.offset + stop
        filled = 0
        while at < end:
            got = os.preadv(handle, [out[filled:]], at)
            if got == 0:
                raise SpearError(Code.FILE_CORRUPT, f"{info.file} ends before {name} does", file=info.file, tensor=name)
            at, filled = at + got, filled + got
        self.bytes_read += filled

    def will_need(self, name: str) -> None:
        """Tells the kernel to fetch a tensor from the disk in the background."""
        info = self.info(name)
        os.posix_fadvise(self._handles[info.file], info.offset, info.nbytes, os.POSIX_FADV_WILLNEED)

    def close(self) -> None:
        while self._handles:
            os.close(self._handles.popitem()[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def memory(tensor: torch.Tensor) -> memoryview:
    """The bytes of a contiguous tensor in host memory, without a copy."""
    if tensor.numel() == 0:
        return memoryview(bytearray())
    bytes_of: Any = tensor.view(torch.uint8).numpy()  # numpy has no bfloat16, bytes it has
    return memoryview(bytes_of)


def read_config(path: Path) -> dict[str, Any]:
    """config.json of a checkpoint; raises `SpearError(CONFIG_INVALID)`."""
    try:
        raw = (path / "config.json").read_bytes()
    except FileNotFoundError:
        raise SpearError(Code.CONFIG_INVALID, "config.json is missing", file="config.json") from None
    return parse_object(raw, code=Code.CONFIG_INVALID, file="config.json")


def _read_index(path: Path) -> dict[str, str] | None:
    file = path / INDEX
    if not file.exists():
        return None
    return parse_index(file.read_bytes(), file=INDEX, files={entry.name for entry in path.iterdir()})


def _single(path: Path) -> str:
    if (path / SINGLE).exists():
        return SINGLE
    found = sorted(entry.name for entry in path.glob("*.safetensors"))
    if len(found) != 1:
        raise SpearError(Code.WEIGHTS_MISSING, f"no {SINGLE} and no {INDEX}", file=SINGLE)
    return found[0]


def _open(path: Path, file: str) -> int:
    """A shard, open for reading; raises `SpearError(WEIGHTS_MISSING)` where it is a link to somewhere else."""
    try:
        return os.open(path / file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise SpearError(Code.WEIGHTS_MISSING, f"{file} is a link, not a file", file=file) from None


def _read_header(handle: int, *, file: str) -> dict[str, TensorInfo]:
    size = header_size(os.pread(handle, LENGTH_BYTES, 0), file=file, limit=MAX_HEADER_BYTES)
    raw = os.pread(handle, size, LENGTH_BYTES)
    if len(raw) != size:
        raise SpearError(Code.HEADER_INVALID, f"{file} ends within its header", file=file)
    return parse_header(raw, file=file, file_size=os.fstat(handle).st_size, max_tensors=MAX_TENSORS)
