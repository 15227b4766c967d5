"""This machine: data directory, disk, GPU, versions."""

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from app.doctor.finding import Finding, fail, ok, skip, warn
from app.settings import Settings

LEAST_FREE, ENOUGH_FREE = 1_000_000_000, 20_000_000_000
"""bytes: the database and one small model; the models of one usual merge"""
PROBE_BYTES = 32_000_000
FAST, SLOW = 500e6, 80e6
"""bytes a second that are on the disk: an SSD's, and what a merge has to wait for"""
DISTRIBUTION = "spear-merge"
PARTS = ("api", "worker", "local", "eval")
_TORCH = (
    "import json, torch; n = torch.cuda.device_count() if torch.cuda.is_available() else 0; print(json.dumps({"
    "'version': torch.__version__, 'cuda': torch.version.cuda, "
    "'devices': [[p.name, p.total_memory] for p in map(torch.cuda.get_device_properties, range(n))]}))"
)
_TORCH_SECONDS = 120


def check_disk(settings: Settings) -> Iterator[Finding]:
    """The data directory: can be written, has room, and how fast it is. A directory that is not there is not made."""
    area, home = "disk", settings.home
    place = next(path for path in (home, *home.parents) if path.exists())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        words = f"{place} cannot be written by this user"
        yield fail(area, "data directory", words, cure="chown it, or set SPEAR_DATA_DIR")
        return
    yield ok(area, "data directory", f"{home}" + ("" if place == home else f", to be made in {place}"))
    free = shutil.disk_usage(place).free
    words = f"{free / 1e9:.1f} GB free"
    cure = "free some, lower SPEAR_CACHE_MAX_BYTES, or name a larger disk in SPEAR_DATA_DIR"
    if free < LEAST_FREE:
        yield fail(area, "space", words, cure=cure)
        return
    yield ok(area, "space", words) if free >= ENOUGH_FREE else warn(area, "space", words, cure=cure)
    yield _speed(area, place)


def check_gpu(settings: Settings) -> Iterator[Finding]:
    """What `SPEAR_DEVICE` asks for against what torch finds, asked in a process of its own."""
    area = "gpu"
    try:
        version("torch")
    except PackageNotFoundError:
        yield skip(area, "torch", "is not installed: no worker can run here")
        return
    try:
        told = subprocess.run(  # noqa: S603  (a list of our own making, no shell)
            [sys.executable, "-c", _TORCH], capture_output=True, text=True, timeout=_TORCH_SECONDS, check=True
        )
        seen = json.loads(told.stdout)
    except (subprocess.SubprocessError, OSError, ValueError) as error:
        last = " ".join((getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1:])
        yield fail(area, "torch", f"cannot be loaded: {last}", cure="install it again, in the build for this machine")
        return
    yield ok(area, "torch", f"{seen['version']}, " + (f"CUDA {seen['cuda']}" if seen["cuda"] else "for CPUs"))
    devices = ", ".join(f"{name} ({memory / 1e9:.0f} GB)" for name, memory in seen["devices"])
    if devices:
        yield ok(area, "devices", devices + (" (not used: SPEAR_DEVICE=cpu)" if settings.device == "cpu" else ""))
    elif settings.device == "cuda":
        why = "the installed torch is built for CPUs" if not seen["cuda"] else "torch sees none"
        cure = "install torch for CUDA and the driver, or set auto"
        yield fail(area, "devices", f"SPEAR_DEVICE=cuda, and {why}", cure=cure)
    else:
        yield ok(area, "devices", f"none; SPEAR_DEVICE={settings.device} computes on the CPU")


def check_versions() -> Iterator[Finding]:
    """Python, and the packages that this one asks for; which parts of the service can run here."""
    area = "versions"
    yield ok(area, "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    try:
        yield ok(area, DISTRIBUTION, version(DISTRIBUTION))
        asked = [Requirement(line) for line in requires(DISTRIBUTION) or ()]
    except PackageNotFoundError:
        yield fail(area, DISTRIBUTION, "is not installed as a package", cure="make venv, or pip install it")
        return
    wrong = _unmet(asked, part="")
    if wrong:
        yield fail(area, "packages", "; ".join(wrong), cure="make venv (the lock has the tested versions)")
    else:
        yield ok(area, "packages", "all that every part needs")
    for part in PARTS:
        lacking = _unmet(asked, part=part)
        if lacking:
            yield skip(area, f"part {part}", f"cannot run here: {'; '.join(lacking)}")
        else:
            yield ok(area, f"part {part}", "can run here")


def _speed(area: str, place: Path) -> Finding:
    """Bytes a second that a file of some size takes to be on the disk."""
    content = os.urandom(1_000_000)  # a file system that compresses would flatter zeros
    began = time.monotonic()
    try:
        with tempfile.TemporaryFile(dir=place) as stream:
            for _ in range(PROBE_BYTES // len(content)):
                stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        words = f"a file could not be written: {error.strerror}"
        return fail(area, "speed", words, cure="look at the disk (dmesg, df -i)")
    rate = PROBE_BYTES / (time.monotonic() - began)
    word = "fast" if rate >= FAST else "slow" if rate < SLOW else "ordinary"
    detail = f"{rate / 1e6:.0f} MB/s written and synced ({word})"
    if rate < SLOW:
        return warn(area, "speed", detail, cure="a merge is bound by this disk: name a local SSD in SPEAR_DATA_DIR")
    return ok(area, "speed", detail)


def _unmet(asked: list[Requirement], *, part: str) -> list[str]:
    """Requirements of a part ("" for all parts) that this machine lacks, or has in another version."""
    chosen = [one for one in asked if _of_part(one, part)]
    wrong = []
    for one in chosen:
        try:
            found = version(one.name)
        except PackageNotFoundError:
            wrong.append(f"{one.name} is missing")
            continue
        if one.specifier and not one.specifier.contains(found, prereleases=True):
            wrong.append(f"{one.name} is {found}, not {one.specifier}")
    return wrong


def _of_part(one: Requirement, part: str) -> bool:
    if one.name == DISTRIBUTION:
        return False
    if one.marker is None:
        return not part
    return one.marker.evaluate({"extra": part}) and (not part or not one.marker.evaluate({"extra": ""}))
