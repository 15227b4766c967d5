"""The computing child: started without credentials, heard over a pipe, killed when it has to stop."""

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from app.errors import Code, SpearError
from worker.death import adopt, bury, die_with

PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")
COMPILED = ("compiled.py", "methods/fused/*.py", "scores/passes.py", "spectra/pairs.py", "spectra/tridiagonal.py")
"""sources of what numba compiles"""
_POLL_SECONDS = 0.2
_STDERR = 2
_MAX_MESSAGE = 256_000_000
_FIELDS = {
    "stage": {"name", "total", "unit"}, "step": {"done", "name"}, "spectrum": {"record"}, "sheet": {"record"},
    "beat": set(), "warning": {"message"}, "error": {"code", "message", "names"}, "done": {"summary"},
}  # fmt: skip
"""what each kind of message has at least"""
_TEARDOWN_SECONDS = 30
_KILLED_HINTS = {
    signal.SIGKILL: (Code.OUT_OF_MEMORY, "was killed, most likely because memory ran out"),
    signal.SIGSEGV: (Code.COMPUTE_CRASHED, "crashed (segmentation fault)"),
}


def run_child(
    task: Path, *, threads: int, hear: Callable[[dict[str, Any]], None], check: Callable[[], None],
    started: Callable[[], None] = lambda: None, kernels: Path | None = None,
) -> dict[str, Any]:
    """Run the pipeline on a task file; its summary.

    `hear` gets each message but the last, `check` is called several times a second and raises to stop the child.
    `kernels` is the folder for compiled code, which outlives the child.
    Raises `SpearError` as the child reports it, or `compute_crashed` / `out_of_memory` if the child died.
    """
    last: dict[str, Any] = {}
    with _started(task, threads=threads, kernels=kernels) as (process, pipe):
        started()
        for message in _messages(pipe, check=check):
            if message["kind"] in {"done", "error"}:
                last = message
            else:
                hear(message)
        status = _ended(process, check=check)
    if last.get("kind") == "error":
        raise _told(last)
    if status != 0 or not last:
        raise _death(status)
    summary: dict[str, Any] = last["summary"]
    return summary


@contextmanager
def _started(task: Path, *, threads: int, kernels: Path | None) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    adopt()
    reading, writing = os.pipe()
    parent = os.getpid()
    try:
        process = subprocess.Popen(  # noqa: S603  (a list of our own making, no shell)
            [sys.executable, "-P", "-m", "worker.pipeline", "spear-worker-child", str(task), str(writing)],
            env=_environment(os.environ, threads=threads, kernels=kernels, scratch=task.parent), pass_fds=(writing,),
            stdin=subprocess.DEVNULL, stdout=_STDERR, start_new_session=True, preexec_fn=lambda: die_with(parent),  # noqa: PLW1509
        )
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    try:
        yield process, reading
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        bury(process.pid)  # what it has forked dies with it
        os.close(reading)


def _ended(process: subprocess.Popen[bytes], *, check: Callable[[], None]) -> int:
    """The exit status; a child that has said its last word and does not end (a device's teardown) is killed."""
    deadline = time.monotonic() + _TEARDOWN_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        check()
        time.sleep(0.02)
    return process.poll() or 0


def _messages(pipe: int, *, check: Callable[[], None]) -> Iterator[dict[str, Any]]:
    """JSON lines until the child closes its end."""
    buffer = b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            check()
            if not selector.select(_POLL_SECONDS):
                continue
            chunk = os.read(pipe, 1 << 20)
            if not chunk:
                return
            *lines, buffer = (buffer + chunk).split(b"\n")
            if len(buffer) > _MAX_MESSAGE:
                raise _garbage(buffer)
            yield from (_message(line) for line in lines)


def _message(line: bytes) -> dict[str, Any]:
    """One line, if it is a message of the protocol in `worker.pipeline.task`; the child is not trusted with more."""
    try:
        message = json.loads(line)
        if set(message) >= _FIELDS[message["kind"]]:
            return dict(message)
    except (ValueError, KeyError, TypeError):
        pass
    raise _garbage(line)


def _garbage(line: bytes) -> SpearError:
    return SpearError(Code.COMPUTE_CRASHED, f"the computing process said something unintelligible: {line[:80]!r}")


def _environment(
    outer: Mapping[str, str], *, threads: int, kernels: Path | None = None, scratch: Path | None = None
) -> dict[str, str]:
    """No SPEAR_ name, no token, no proxy: only what Python, torch and the device need, and the word to stay offline."""
    count = str(threads)
    places = {"NUMBA_CACHE_DIR": str(_compiled(kernels))} if kernels else {}
    places |= {"HF_HOME": str(scratch / "huggingface")} if scratch else {}  # what data sets are read into
    return {name: outer[name] for name in PASSED_ON if name in outer} | places | {
        "OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count, "OPENBLAS_NUM_THREADS": count,
        "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "MPLBACKEND": "Agg", "PYTHONHASHSEED": "0",
    }


def _compiled(kernels: Path) -> Path:
    """The folder of what is compiled from these very sources; another version of them has another."""
    sources = sha256()
    here = Path(__file__).parent
    for file in sorted(file for pattern in COMPILED for file in here.glob(pattern)):
        sources.update(file.read_bytes())
    return kernels / sources.hexdigest()[:16]


def _told(message: dict[str, Any]) -> SpearError:
    """The error that the child reports."""
    try:
        return SpearError(Code(message["code"]), str(message["message"]), **message["names"])
    except (ValueError, TypeError):
        return _garbage(json.dumps(message).encode())


def _death(status: int) -> SpearError:
    if status < 0:
        what = f"died of signal {-status}"
        code, what = _KILLED_HINTS.get(signal.Signals(-status), (Code.COMPUTE_CRASHED, what))
        return SpearError(code, f"the computing process {what}", signal=-status)
    return SpearError(Code.COMPUTE_CRASHED, f"the computing process ended with status {status}", status=status)
