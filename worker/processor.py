"""What the processor can do, told to libraries that do not find out by themselves. Imported before numpy and scipy."""

import hashlib
import os
import platform
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

WIDE = frozenset({"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"})
"""what OpenBLAS's kernels of this name need"""
NAMED = "SkylakeX"


def name_kernels() -> None:
    """Has OpenBLAS use its 512-bit kernels where the processor can run them; one that it does not know gets older ones.

    Measured on Zen 5 with the kernels of a Haswell: products of symmetric matrices are 1.7 times as fast, reductions
    to tridiagonal form 1.1 to 1.2 times. What the environment says is overruled: kernels round differently, and two
    processes of one machine, a worker and somebody's shell, must come to the same digits.
    """
    os.environ.pop("OPENBLAS_CORETYPE", None)
    os.environ.pop("OPENBLAS_L2_SIZE", None)
    if features() >= WIDE:
        os.environ["OPENBLAS_CORETYPE"] = NAMED


@lru_cache(maxsize=1)
def features() -> frozenset[str]:
    """The first processor's flags, as Linux names them; none where it does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), ()))


def renamed() -> bool:
    """Whether the environment has numba compile for another processor than this one."""
    return not os.environ.keys().isdisjoint({"NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "NUMBA_ENABLE_AVX"})


def converts_halves() -> bool:
    """Whether compiled code can read and write fp16 by instructions.

    Where it cannot, LLVM calls a function that is not there, and the process is aborted. Numba leaves AVX out on some
    processors that have F16C but no AVX2.
    """
    return not renamed() and (platform.machine() in {"aarch64", "arm64"} or features() >= {"avx2", "f16c"})


@lru_cache(maxsize=2)
def arithmetic(device: str) -> str:
    """`device` (cpu or cuda) with a short digest of all that decides the last digits there, as `cpu-1a2b3c4d`.

    Libraries, their kernels and the processor's instructions: what one kind computed is not what another would have.
    """
    import torch  # noqa: PLC0415  (after `name_kernels`)

    facts: list[str] = [str(torch.__version__)]
    if device == "cuda":
        facts += [str(torch.version.cuda), torch.cuda.get_device_name()]
    else:
        facts += _of_processor()
    return f"{device}-{hashlib.sha256(repr(facts).encode()).hexdigest()[:8]}"


def _of_processor() -> list[str]:
    import scipy.linalg  # noqa: PLC0415  (which loads its BLAS)
    import torch  # noqa: PLC0415
    from threadpoolctl import threadpool_info  # noqa: PLC0415

    vectors = sorted(flag for flag in features() if flag.startswith(("avx", "fma", "amx", "sse")))
    pools: list[dict[str, Any]] = [pool for pool in threadpool_info() if pool["internal_api"] != "openmp"]
    kernels = sorted({f"{pool['internal_api']} {pool['version']} {pool.get('architecture')}" for pool in pools})
    compiled = f"numba {version('numba')}" if find_spec("numba") else "torch"
    return [str(scipy.__version__), torch.backends.cpu.get_cpu_capability(), compiled, *kernels, *vectors]
