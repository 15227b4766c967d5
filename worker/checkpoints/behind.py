"""Writing behind: one thread hashes and writes finished chunks while the next ones are computed.

Where the process may use one core only, nothing can be overlapped, and handing chunks to and fro costs up to a third of
a cheap merge (measured): there they are written at once, in the calling thread.
"""

import os
import queue
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

import torch

from worker.checkpoints.reader import memory
from worker.checkpoints.writer import ShardedWriter

DEPTH = 3
"""Chunks under way: one being computed, one being written, one between them."""

Job = Callable[[], None]


class WriteBehind:
    """Hands chunks to a `ShardedWriter` in a thread of its own, in order, through a few buffers that are used again.

    A failure in the thread is raised by the next call here. Leaving the context waits for the thread. `overlap` says
    whether there is a thread at all; by default where there is more than one core. Up to `held` buffers may be out
    before the first of them is written; with `pin` a device can copy into them by itself.
    """

    def __init__(
        self, writer: ShardedWriter, *, overlap: bool | None = None, held: int = 1, pin: bool = False
    ) -> None:
        self._writer = writer
        self._overlap = len(os.sched_getaffinity(0)) > 1 if overlap is None else overlap
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._free: queue.SimpleQueue[torch.Tensor] = queue.SimpleQueue()
        self._pin = pin
        self._lent: dict[int, torch.Tensor] = {}
        for _ in range(DEPTH - 1 + held if self._overlap else held):
            self._free.put(torch.empty(0, dtype=torch.uint8, device="cpu"))
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="write-behind", daemon=True)

    def buffer(self, elements: int, dtype: torch.dtype) -> torch.Tensor:
        """A 1-D tensor to compute into and to give to `write`; waits until one of the buffers is free."""
        self._check()
        block = self._free.get()
        self._check()
        if block.numel() < elements * dtype.itemsize:
            block = torch.empty(elements * dtype.itemsize, dtype=torch.uint8, device="cpu", pin_memory=self._pin)
        self._lent[block.data_ptr()] = block
        return block[: elements * dtype.itemsize].view(dtype)

    def write(self, name: str, chunk: torch.Tensor) -> None:
        """The next piece of a tensor, computed in a buffer that `buffer` gave."""
        block = self._lent.pop(chunk.data_ptr())
        self._do(lambda: self._write(name, chunk, block))

    def finish(self, name: str, *, note: str, then: Job) -> None:
        """The tensor is complete; `then` is called, in the thread, when it is recorded."""
        self._do(lambda: self._finish(name, note, then))

    def __enter__(self) -> Self:
        if self._overlap:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._overlap:
            self._jobs.put(None)
            self._thread.join()
        if error is None:
            self._check()

    def _do(self, job: Job) -> None:
        if self._overlap:
            self._jobs.put(job)
        else:
            job()

    def _write(self, name: str, chunk: torch.Tensor, block: torch.Tensor) -> None:
        try:
            if not self._error:
                self._writer.write(name, memory(chunk))
        finally:
            self._free.put(block)

    def _finish(self, name: str, note: str, then: Job) -> None:
        if not self._error:
            self._writer.finish(name, note=note)
            then()

    def _run(self) -> None:
        while job := self._jobs.get():
            try:
                job()
            except BaseException as error:  # noqa: BLE001  (raised in the computing thread)
                self._error = self._error or error

    def _check(self) -> None:
        if self._error:
            raise self._error
