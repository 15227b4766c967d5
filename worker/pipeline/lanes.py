"""Queues of a device's work: copies in, arithmetic and copies out go on beside each other, each in its own order.

On the CPU nothing is queued: what is asked for is done when the call returns, and there is nothing to wait for.
"""

from contextlib import AbstractContextManager, nullcontext

import torch

from worker.pipeline.task import Task


class Mark:
    """A point in a lane: everything that was asked for before it."""

    def __init__(self, event: torch.cuda.Event | None = None) -> None:
        self._event = event

    def wait(self) -> None:
        """Waits, in the calling thread, until the device is past it."""
        if self._event:
            self._event.synchronize()

    def hold(self, stream: torch.cuda.Stream) -> None:
        """What is asked of the stream from now on waits for it, on the device."""
        if self._event:
            stream.wait_event(self._event)


class Lane:
    """One queue. With `current`, the one that torch uses anyway."""

    def __init__(self, device: torch.device, *, current: bool = False) -> None:
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.current_stream(device) if current else torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def work(self) -> AbstractContextManager[object]:
        """A context within which torch's calls, in this thread, go into this lane."""
        return torch.cuda.stream(self._stream) if self._stream else nullcontext()

    def mark(self) -> Mark:
        return Mark(self._stream.record_event()) if self._stream else Mark()

    def after(self, mark: Mark) -> None:
        """What is asked for from now on begins when the device is past `mark`."""
        if self._stream:
            mark.hold(self._stream)


class Block:
    """Memory for one chunk of one model, on the host (pinned, so that copies need no thread) and on the device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._host = torch.empty(0, dtype=torch.uint8, device="cpu")
        self._there = self._host

    def take(self, elements: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Two uninitialised 1-D tensors, on the host and on the device."""
        nbytes = elements * dtype.itemsize
        if self._host.numel() < nbytes:
            drain(self._device)  # the allocator knows nothing of the other lanes that may still read the old block
            self._host = pinned(nbytes, device=self._device)
            self._there = torch.empty(nbytes, dtype=torch.uint8, device=self._device)
        return self._host[:nbytes].view(dtype), self._there[:nbytes].view(dtype)


def pinned(nbytes: int, *, device: torch.device) -> torch.Tensor:
    """Host memory that the device can read and write by itself; on the CPU it is like any other."""
    return torch.empty(nbytes, dtype=torch.uint8, device="cpu", pin_memory=device.type == "cuda")


def drain(device: torch.device) -> None:
    """Waits until the device has done all that was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def device_for(task: Task) -> torch.device:
    """Where a merge is computed: on a CUDA device only if the task names it, and not in compat mode.

    With `auto` the CPU: it merges about as fast as a disk reads, and its results are the same on every machine. The
    bits of mergekit are those of its run on a CPU.
    """
    asked = task.device == "cuda" and not getattr(task.method, "compat", None)
    return torch.device("cuda" if asked else "cpu")
