"""Memory that was freed goes back to the system, so that a process holds no more than it uses."""

import ctypes
from functools import lru_cache

M_MMAP_THRESHOLD = -3  # malloc.h
LARGE = 8 << 20  # bytes: matrices are larger, the blocks that arithmetic reuses are smaller


@lru_cache(maxsize=1)
def free_matrices_at_once() -> None:
    """From now on a freed matrix leaves the process, instead of being kept for later.

    The C library keeps freed blocks of up to 32 MB, and matrices of several sizes that come and go in turn then add up:
    measured, scoring a 2048 x 2048 fp32 matrix held 5.3 times its size. Once for a process; does nothing where the C
    library has no `mallopt`.
    """
    tune = getattr(ctypes.CDLL(None), "mallopt", None)
    if tune:
        tune(M_MMAP_THRESHOLD, LARGE)
