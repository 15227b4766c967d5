"""What computed a merge: versions, and the machine it ran on."""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from worker.pipeline.operations import FORMAT

PACKAGES = ("spear-merge", "torch", "safetensors", "numpy", "scipy", "pydantic", "matplotlib")


def engine(*, device: str) -> dict[str, str]:
    """Versions of all that can change a digit of the result; the same on every machine of one image.

    `arithmetic` counts the versions of our own that give other bytes, which may be several between two releases.
    """
    versions = {name: _version(name) for name in PACKAGES}
    return {
        "python": platform.python_version(), **versions, "arithmetic": str(FORMAT), "machine": platform.machine(),
        "device": device,
    }  # fmt: skip


def cpu_name() -> str:
    """The processor's name for people, as the kernel tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"
