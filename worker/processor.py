"""What the processor can do, told to libraries that do not find out by themselves. Imported before numpy and scipy."""

import os
from functools import lru_cache
from pathlib import Path

WIDE = frozenset({"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"})
"""what OpenBLAS's kernels of this name need"""
NAMED = "SkylakeX"


def name_kernels() -> None:
    """Has OpenBLAS use its 512-bit kernels where the processor can run them; one that it does not know gets older ones.

    Measured on Zen 5, which OpenBLAS 0.3.30 takes for a Haswell: products of symmetric matrices are 1.7 times as fast,
    reductions to tridiagonal form 1.1 times. A choice made outside stays.
    """
    if features() >= WIDE:
        os.environ.setdefault("OPENBLAS_CORETYPE", NAMED)


@lru_cache(maxsize=1)
def features() -> frozenset[str]:
    """The first processor's flags, as Linux names them; none where it does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), ()))
