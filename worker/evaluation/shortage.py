"""Memory that ran out, known by one kind of error on every device."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_ALLOCATOR = "DefaultCPUAllocator"
SHORTAGES = (MemoryError, torch.OutOfMemoryError)
"""what a shortage is raised as, inside `shortage_told` and by devices"""


def is_shortage(error: BaseException) -> bool:
    """Whether memory ran out. On the CPU torch says so by a plain `RuntimeError` that names its allocator."""
    return isinstance(error, SHORTAGES) or (isinstance(error, RuntimeError) and _ALLOCATOR in str(error))


@contextmanager
def shortage_told() -> Iterator[None]:
    """Raises `MemoryError` where the CPU's memory ran out."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, SHORTAGES) or not is_shortage(error):
            raise
        raise MemoryError(str(error).partition("\n")[0]) from error
