"""Chunks through a device: read ahead into pinned memory, copied over, merged there, copied back, written behind.

While the device computes chunk n, a thread reads chunk n + 1 and has it copied over, and the merged chunk n - 1 is
copied back and written. Events keep the order on the device, so no lane waits for the host; memory is two blocks of
each model and of the output. The same code runs on the CPU, where every copy is done at once: so it is tested.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import NamedTuple, Self

import torch

from worker.checkpoints.behind import WriteBehind
from worker.checkpoints.finite import is_finite
from worker.methods import Chunk, NotFiniteError
from worker.methods.base import CHUNK
from worker.pipeline.lanes import Block, Lane, Mark, drain

DEPTH = 2
"""chunks under way in each direction"""
CUDA_CHUNK = 1 << 24
"""elements of a chunk: 32 MiB of 16 bits are a millisecond on the bus, far more than it takes to start a kernel"""

Read = Callable[[int, int, torch.Tensor], object]
"""reads elements from one place to another into a host tensor, which is just as long"""


class Part(NamedTuple):
    """One model's tensor: how it is stored, and how it is read."""

    dtype: torch.dtype
    read: Read


class _Slot:
    """The blocks of one chunk; `brought` and `used` say how far copying and computing are."""

    def __init__(self, device: torch.device, parts: int) -> None:
        self.blocks = [Block(device) for _ in range(parts)]
        self.brought = Mark()
        self.used = Mark()


class Staging:
    """A context manager: leaving it ends the reading thread. `behind` has to have DEPTH buffers at least."""

    def __init__(self, device: torch.device, behind: WriteBehind) -> None:
        self.device = device
        self._behind = behind
        self._in, self._compute, self._out = Lane(device), Lane(device, current=True), Lane(device)
        self._slots: list[_Slot] = []
        self._rooms = deque([(Block(device), Mark()) for _ in range(DEPTH)])
        self._room = Block(device)
        self._pending: tuple[str, torch.Tensor, Mark] | None = None
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="read-ahead")

    def chunks(self, spans: Iterable[tuple[int, int]], parts: Sequence[Part | None]) -> Iterator[Chunk]:
        """The chunks on the device: the first part is the base (of no elements where it is None), the rest are experts.

        A chunk is valid until the next one is asked for. To be closed where it is not exhausted.
        """
        if not self._slots or len(self._slots[0].blocks) < len(parts):
            drain(self.device)
            self._slots = [_Slot(self.device, len(parts)) for _ in range(DEPTH)]
        free, ahead = deque(self._slots), deque[Future[tuple[_Slot, Chunk]]]()
        try:
            for start, stop in spans:
                ahead.append(self._reader.submit(self._bring, free.popleft(), start, stop, parts))
                if not free:
                    yield from self._arrived(ahead, free)
            while ahead:
                yield from self._arrived(ahead, free)
        finally:
            wait(ahead)  # where the consumer has failed: nobody shall read into blocks that are used again

    def room(self, elements: int, dtype: torch.dtype) -> torch.Tensor:
        """A 1-D tensor on the device to merge into and to give to `store`."""
        self._room, left = self._rooms.popleft()
        self._compute.after(left)
        return self._room.take(elements, dtype)[1]

    def store(self, name: str, merged: torch.Tensor) -> None:
        """The next piece of a tensor, computed in the last `room`; raises `NotFiniteError` for the one before it."""
        computed = self._compute.mark()
        host = self._behind.buffer(len(merged), merged.dtype)
        with self._out.work():
            self._out.after(computed)
            host.copy_(merged, non_blocking=True)
            left = self._out.mark()
        self._rooms.append((self._room, left))
        self.flush()
        self._pending = (name, host, left)

    def flush(self) -> None:
        """Hands the last piece on to be written; due at a tensor's end. Raises `NotFiniteError`."""
        if self._pending:
            (name, host, left), self._pending = self._pending, None
            left.wait()
            if not is_finite(host):
                raise NotFiniteError(name)
            self._behind.write(name, host)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.shutdown()

    def _arrived(self, ahead: deque[Future[tuple[_Slot, Chunk]]], free: deque[_Slot]) -> Iterator[Chunk]:
        slot, chunk = ahead.popleft().result()
        self._compute.after(slot.brought)
        yield chunk
        slot.used = self._compute.mark()
        free.append(slot)

    def _bring(self, slot: _Slot, start: int, stop: int, parts: Sequence[Part | None]) -> tuple[_Slot, Chunk]:
        """In the reading thread: a chunk into the slot's pinned memory, and on its way to the device."""
        slot.brought.wait()  # the pinned memory is free again
        with self._in.work():  # blocks belong to the lane that writes them: no other lane's memory is handed out
            pairs = []
            for part, block in zip(parts, slot.blocks, strict=False):
                if part is not None:
                    here, there = block.take(stop - start, part.dtype)
                    part.read(start, stop, here)
                    pairs.append((here, there))
            self._in.after(slot.used)
            for here, there in pairs:
                there.copy_(here, non_blocking=True)
            slot.brought = self._in.mark()
        models = [there for _, there in pairs]
        base = models.pop(0) if parts[0] is not None else torch.empty(0, device=self.device)
        return slot, Chunk(start, stop, base, tuple(models))


def chunk_of(device: torch.device) -> int:
    """Elements of a chunk: what fits the second cache, or what keeps a bus busy."""
    return CUDA_CHUNK if device.type == "cuda" else CHUNK
