"""Memory that is used again for matrix after matrix.

A page that is fresh from the system costs more than what is done with it: measured, reading 32 MB into new memory took
27 ms, into memory in use 3 ms, and every Gram matrix of 2048 columns paid 15 ms.
"""

import math

import torch
from torch import Tensor


class Room:
    """Blocks of memory by name, each as large as the largest that was asked of it; for one thread of one process."""

    def __init__(self) -> None:
        self._blocks: dict[str, Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A contiguous tensor on the CPU, its numbers undefined. It lies where the last one taken by `name` lay."""
        size = math.prod(shape) * dtype.itemsize
        if name not in self._blocks or self._blocks[name].numel() < size:
            self._blocks.pop(name, None)  # first, so that old and new are not there at once
            self._blocks[name] = torch.empty(size, dtype=torch.uint8)
        return self._blocks[name][:size].view(dtype).reshape(shape)

    def free(self, name: str) -> None:
        """Let the block of this name go."""
        self._blocks.pop(name, None)


def taken(room: Room | None, name: str, shape: tuple[int, ...], dtype: torch.dtype, *, device: torch.device) -> Tensor:
    """Of the room where there is one and the device is the CPU, else new; its numbers undefined."""
    if room is None or device.type != "cpu":
        return torch.empty(shape, dtype=dtype, device=device)
    return room.take(name, shape, dtype)
