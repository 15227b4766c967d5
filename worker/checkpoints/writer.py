"""Streaming, resumable writing of a sharded safetensors checkpoint.

The layout is known before the first byte: every file is preallocated as `<name>.partial`, written once from front to
back, and renamed when all are complete; the index comes last. See docs/decisions/streaming.md.
"""

import os
from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from app.errors import SpearError
from worker.checkpoints.checksum import Checksum
from worker.checkpoints.disk import disk_full_named
from worker.checkpoints.journal import Journal
from worker.checkpoints.layout import METADATA, Shard, Wanted, index_text, lay_out
from worker.checkpoints.reader import INDEX

PARTIAL = ".partial"
READ_BACK_BYTES = 1 << 20


@dataclass(frozen=True)
class WrittenFile:
    """One finished file; `checksum` was computed from the bytes as they were written."""

    name: str
    nbytes: int
    checksum: int


class ShardedWriter:
    """Writes tensors in the order of `order`, each as any number of consecutive pieces.

    A context manager: on success no partial file is left; after a `SpearError` nothing is left at all; after
    any other end (a kill, a bug) the partial files and the journal stay, and the next writer with the same `plan` goes
    on behind the last tensor that is whole. `finished` holds those tensors' notes by name.
    """

    def __init__(
        self, output: Path, *, tensors: Iterable[Wanted], max_shard_bytes: int, journal: Path, plan: str,
        metadata: Mapping[str, str] = METADATA,
    ) -> None:
        self.shards = lay_out(tensors, max_shard_bytes=max_shard_bytes, metadata=metadata)
        self.finished: dict[str, str] = {}
        self._output = output
        self._sums = {shard.file: Checksum() for shard in self.shards}
        self._handles: dict[str, int] = {}
        self._places = {tensor.name: tensor for shard in self.shards for tensor in shard.tensors}
        try:
            with disk_full_named(journal.name):
                output.mkdir(parents=True, exist_ok=True)
                journal.parent.mkdir(parents=True, exist_ok=True)
                self._journal = Journal(journal, plan=plan)
        except SpearError:
            journal.unlink(missing_ok=True)
            _remove_weights(output)
            raise
        try:
            self._start()
        except SpearError:
            self.discard()
            raise

    @property
    def order(self) -> list[str]:
        """All tensors' names in the order in which they must be written; the `finished` ones are to be skipped."""
        return list(self._places)

    def write(self, name: str, data: memoryview) -> None:
        """The next piece of a tensor's bytes; raises `SpearError(DISK_FULL)`."""
        file = self._places[name].file
        with disk_full_named(file):
            written = 0
            while written < len(data):
                written += os.write(self._handles[file], data[written:])
        self._sums[file].update(data)

    def finish(self, name: str, *, note: str = "") -> None:
        """The tensor is complete: `note` is given back in `finished` when the merge resumes."""
        place = self._places[name]
        at = os.lseek(self._handles[place.file], 0, os.SEEK_CUR)
        if at != place.offset + place.nbytes:
            raise ValueError(f"{name}: written up to byte {at}, expected {place.offset + place.nbytes}")
        self.finished[name] = note
        with disk_full_named(self._journal.path.name):
            self._journal.record(name, file=place.file, checksum=self._sums[place.file].value, note=note)

    def complete(self) -> tuple[WrittenFile, ...]:
        """Gives all files their names and writes the index. The journal stays: a rerun finds all done."""
        missing = [name for name in self.order if name not in self.finished]
        if missing:
            raise ValueError(f"{len(missing)} tensors were never written, {missing[0]} among them")
        self._close()
        for shard in self.shards:
            (self._output / (shard.file + PARTIAL)).rename(self._output / shard.file)
        if len(self.shards) > 1:
            with disk_full_named(INDEX):
                (self._output / INDEX).write_text(index_text(self.shards))
        self._journal.close()
        return tuple(WrittenFile(shard.file, shard.size, self._sums[shard.file].value) for shard in self.shards)

    def discard(self) -> None:
        """Removes everything that this writer, or an earlier one for the same output, has left."""
        self._close()
        _remove_weights(self._output)
        self._journal.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, SpearError):
            self.discard()
        self._close()
        self._journal.close()

    def _start(self) -> None:
        (self._output / INDEX).unlink(missing_ok=True)
        if not self._journal.entries:
            _remove_weights(self._output)
        for shard in self.shards:
            with disk_full_named(shard.file):
                self._open(shard)
        for shard in self.shards:
            with disk_full_named(shard.file):
                self._resume(shard)

    def _open(self, shard: Shard) -> None:
        """Takes the whole file's room at once."""
        final, partial = self._output / shard.file, self._output / (shard.file + PARTIAL)
        if final.exists():  # killed while the files were being renamed, or later
            final.rename(partial)
        handle = self._handles[shard.file] = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        os.posix_fallocate(handle, 0, shard.size)
        os.ftruncate(handle, shard.size)

    def _resume(self, shard: Shard) -> None:
        """Reads back what is claimed to be finished; stops at the first claim that does not hold."""
        handle = self._handles[shard.file]
        os.pwrite(handle, shard.head, 0)
        known, at = Checksum(), len(shard.head)
        known.update(shard.head)
        for tensor in shard.tensors:
            claim = self._journal.entries.get(tensor.name)
            if claim is None or claim["file"] != shard.file:
                break
            found = _read_back(handle, start=at, stop=at + tensor.nbytes, before=known)
            if claim["checksum"] != found.value:
                break
            self.finished[tensor.name] = claim["note"]
            known, at = found, at + tensor.nbytes
        self._sums[shard.file] = known
        os.lseek(handle, at, os.SEEK_SET)

    def _close(self) -> None:
        while self._handles:
            os.close(self._handles.popitem()[1])


def _read_back(handle: int, *, start: int, stop: int, before: Checksum) -> Checksum:
    found, buffer = copy(before), memoryview(bytearray(READ_BACK_BYTES))
    while start < stop:
        got = os.preadv(handle, [buffer[: stop - start]], start)
        found.update(buffer[:got])
        start += got
    return found


def _remove_weights(output: Path) -> None:
    for pattern in ("model*.safetensors", f"model*.safetensors{PARTIAL}", INDEX):
        for path in output.glob(pattern):
            path.unlink()
