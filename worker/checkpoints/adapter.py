"""A LoRA adapter and its base, read as if they were one checkpoint: every tensor is applied while it is read."""

import os
from pathlib import Path
from typing import Self

import torch

from app.errors import Code, SpearError
from app.hub.adapter_tensors import Change, plan_changes
from app.hub.adapters import ADAPTER_CONFIG, ADAPTER_WEIGHTS, AdapterConfig, parse_adapter_config
from app.hub.headers import LENGTH_BYTES, header_size, parse_header
from app.hub.heads import is_tied
from worker.checkpoints.adapter_tensor import AdaptedTensor
from worker.checkpoints.dtypes import torch_dtype
from worker.checkpoints.reader import MAX_HEADER_BYTES, MAX_TENSORS, Checkpoint
from worker.methods.base import Workspace


class AdaptedCheckpoint(Checkpoint):
    """The base's config, tensors and files, with the adapter's changes in what is read."""

    def __init__(
        self, path: Path, *, base: Checkpoint, weights: Checkpoint, adapter: AdapterConfig, changes: dict[str, Change]
    ) -> None:
        super().__init__(path, config=base.config, tensors=base.tensors, handles={})
        self.changes = changes
        self._base = base
        self._weights = weights
        self._adapter = adapter
        self._work = Workspace()
        self._last: AdaptedTensor | None = None

    @classmethod
    def apply(cls, path: Path, *, base: Path) -> Self:
        """Opens the adapter in `path` over the checkpoint in `base`, without reading weights.

        Raises `SpearError` as `Checkpoint.open` and `plan_changes` do.
        """
        adapter = parse_adapter_config((path / ADAPTER_CONFIG).read_bytes())
        under = Checkpoint.open(base)
        try:
            weights = _open_weights(path)
            changes = plan_changes(
                adapter, weights.tensors, base=under.tensors, base_config=under.config,
                tied=is_tied(under.config, under.tensors),
            )
        except BaseException:
            under.close()
            raise
        return cls(path, base=under, weights=weights, adapter=adapter, changes=changes)

    def read_flat(self, name: str, *, start: int, stop: int, out: torch.Tensor) -> torch.Tensor:
        info = self.info(name)
        if name not in self.changes:
            part = self._base.read_flat(name, start=start, stop=stop, out=out)
        elif out.dtype != torch_dtype(info):
            raise ValueError(f"{name} is stored as {info.dtype}, the buffer is {out.dtype}")
        else:
            part = self._applied(name).read(start, stop, out=out[: stop - start])
        self.bytes_read = self._base.bytes_read + self._weights.bytes_read
        return part

    def read_bytes(self, name: str, *, start: int, stop: int, out: memoryview) -> None:
        """As the base class does; of a changed tensor, whole elements only."""
        if name not in self.changes:
            self._base.read_bytes(name, start=start, stop=stop, out=out)
            self.bytes_read = self._base.bytes_read + self._weights.bytes_read
        elif stop > start:
            dtype = torch_dtype(self.info(name))
            whole = torch.frombuffer(out, dtype=dtype)
            self.read_flat(name, start=start // dtype.itemsize, stop=stop // dtype.itemsize, out=whole)

    def will_need(self, name: str) -> None:
        self._base.will_need(name)

    def close(self) -> None:
        self._last = None
        self._base.close()
        self._weights.close()

    def _applied(self, name: str) -> AdaptedTensor:
        """What is known of the tensor that is being read: its factors, the last block."""
        if self._last is None or self._last.info.name != name:
            change = self.changes[name]
            scaling = self._adapter.scaling(change.module, rank=change.rank) if change.rank else 0.0
            self._last = AdaptedTensor(
                self.info(name), change, scaling=scaling, base=self._base, weights=self._weights, work=self._work
            )
        return self._last


def _open_weights(path: Path) -> Checkpoint:
    """The adapter's own tensors."""
    try:
        handle = os.open(path / ADAPTER_WEIGHTS, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise SpearError(Code.WEIGHTS_MISSING, f"no {ADAPTER_WEIGHTS}", file=ADAPTER_WEIGHTS) from None
    try:
        size = header_size(os.pread(handle, LENGTH_BYTES, 0), file=ADAPTER_WEIGHTS, limit=MAX_HEADER_BYTES)
        raw = os.pread(handle, size, LENGTH_BYTES)
        total = os.fstat(handle).st_size
        tensors = parse_header(raw, file=ADAPTER_WEIGHTS, file_size=total, max_tensors=MAX_TENSORS)
    except BaseException:
        os.close(handle)
        raise
    return Checkpoint(path, config={}, tensors=tensors, handles={ADAPTER_WEIGHTS: handle})
