"""Running a merge again on this machine: download, the worker's pipeline in a process of its own, digests.

No service takes part and nothing is published. The process is the one that workers start: it has no credentials and,
where the platform allows it, no network.
"""

import hashlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from app.errors import Code, SpearError
from app.hub.blobs import BlobCache
from app.hub.client import Hub
from app.hub.download import fetch
from app.hub.manifest import Manifest
from app.reproduce.sources import Located
from app.settings import Settings

PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")
Device = Literal["auto", "cpu", "cuda"]
Tell = Callable[[str, float, float, str], None]
"""stage, work done, work in all, unit"""


def refuse_without_torch() -> None:
    """Raises `ValueError` where this machine has no torch, with what to do instead."""
    if importlib.util.find_spec("torch") is None:
        raise ValueError(
            "torch is not installed here, so nothing can be computed: install spear-merge[worker], or let the service "
            "do it with --target org/scratch"
        )


def bring(
    hub: Hub, inputs: list[Located], *, folder: Path, settings: Settings, cached: bool, tell: Tell
) -> None:  # fmt: skip
    """Download every input into `folder/inputs/<number>`; with `cached`, through the cache of the data directory.

    Without it the Hub's bytes of today are what is read. Raises `SpearError(file_corrupt)` naming repository and file
    where they are not those of their digest.
    """
    total, done = float(sum(file.size for one in inputs for file in one.files)), 0.0

    def brought(count: int) -> None:
        nonlocal done
        done += count
        tell("downloading", done, total, "bytes")

    tell("downloading", 0, total, "bytes")
    cache = BlobCache(settings.home / "cache" if cached else folder / "cache", max_bytes=settings.cache_max_bytes)
    for number, one in enumerate(inputs):
        fetch(
            hub, one.pin, one.files, cache=cache, into=folder / "inputs" / str(number), progress=brought,
            stop=lambda: False, workers=settings.download_workers,
        )


def compute(
    manifest: Manifest, *, folder: Path, settings: Settings, threads: int, device: Device, rescore: bool, tell: Tell
) -> None:
    """Run the pipeline on `folder/inputs`; the result is in `folder/output`.

    The manifest's decisions are replayed, or made anew with `rescore`. Raises `SpearError` as the pipeline reports it.
    """
    task = folder / "task.json"
    task.write_text(json.dumps(_task(manifest, folder=folder, threads=threads, device=device, rescore=rescore)))
    last: dict[str, Any] = {}
    with _child(task, threads=threads, kernels=_kernels(settings.home / "kernels")) as messages:
        stage: dict[str, Any] = {}
        for message in messages:
            if message["kind"] == "stage":
                stage = message
                tell(stage["name"], 0, stage["total"], stage["unit"])
            elif message["kind"] == "step" and stage:
                tell(stage["name"], message["done"], stage["total"], stage["unit"])
            elif message["kind"] in {"done", "error"}:
                last = message
    if last.get("kind") == "error":
        raise SpearError(Code(last["code"]), last["message"], **last["names"])
    if not last:
        raise SpearError(Code.COMPUTE_CRASHED, "the computing process ended without a word; its messages are above")


def digests(folder: Path) -> dict[str, str]:
    """The sha256 of every file in the result, by its path."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _sha256(path) for path in paths}


def device_of(manifest: Manifest, settings: Settings) -> Device:
    """The device that computed it; another one may round other digits."""
    return "cpu" if manifest.engine.get("device", "cpu") == "cpu" else settings.device


def _task(manifest: Manifest, *, folder: Path, threads: int, device: Device, rescore: bool) -> dict[str, Any]:
    """The child's input, as `worker.pipeline.task.Task` reads it. The job's id is the original's: it is its work."""
    inputs = [
        {"repo": source.repo, "revision": source.commit, "commit": source.commit, "license": source.license,
         "path": str(folder / "inputs" / str(number)), "digests": source.files}
        for number, source in enumerate(manifest.inputs)
    ]  # fmt: skip
    return {
        "job_id": manifest.job_id, "attempt": 1, "recipe": manifest.recipe, "inputs": inputs, "work_dir": str(folder),
        "device": device, "threads": threads, "again": {"decisions": None if rescore else manifest.replay},
    }  # fmt: skip


@contextmanager
def _child(task: Path, *, threads: int, kernels: Path) -> Iterator[Iterator[dict[str, Any]]]:
    """The computing process's messages; it is killed if the reader goes away."""
    reading, writing = os.pipe()
    kernels.mkdir(parents=True, exist_ok=True)
    try:
        process = subprocess.Popen(  # noqa: S603  (a list of our own making, no shell)
            [sys.executable, "-P", "-m", "worker.pipeline", "spear-worker-child", str(task), str(writing)],
            env=_environment(threads=threads, kernels=kernels), pass_fds=(writing,), stdin=subprocess.DEVNULL,
            stdout=2, start_new_session=True,
        )  # fmt: skip
    finally:
        os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        try:
            yield (json.loads(line) for line in pipe)
        finally:
            if process.poll() is None and sys.exc_info()[0] is not None:
                os.killpg(process.pid, signal.SIGKILL)  # it may have processes of its own
            process.wait()


def _kernels(folder: Path) -> Path:
    """The folder of what is compiled from these very sources: other ones must not find it.

    The pipeline is not imported here, only found.
    """
    found = importlib.util.find_spec("worker")
    places = (found.submodule_search_locations or ()) if found else ()
    sources = hashlib.sha256()
    for file in sorted(file for place in places for file in Path(place).rglob("*.py")):
        sources.update(file.read_bytes())
    return folder / f"again-{sources.hexdigest()[:16]}"


def _environment(*, threads: int, kernels: Path) -> dict[str, str]:
    """No token, no proxy, no setting: what Python, torch and the device need."""
    counts = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return kept | counts | {
        "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "MPLBACKEND": "Agg", "PYTHONHASHSEED": "0",
        "NUMBA_CACHE_DIR": str(kernels),
    }  # fmt: skip


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
