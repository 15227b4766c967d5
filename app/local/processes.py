"""Child processes that never outlive the process that started them."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1
_LOG_BYTES = 10_000_000
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, kw_only=True)
class Account:
    """The user that a child runs as."""

    uid: int
    gid: int


@dataclass(frozen=True, kw_only=True)
class Command:
    """How a child process is started and ended.

    `end` is the signal that asks it to end; the kernel sends `death` when its parent dies. Its standard output
    (unless `output` is a file descriptor or `subprocess.PIPE`) and its errors go to `log`, or else to our own errors.
    """

    argv: Sequence[str]
    env: Mapping[str, str]
    end: signal.Signals = signal.SIGTERM
    death: signal.Signals = signal.SIGTERM
    account: Account | None = None
    descriptors: Sequence[int] = ()
    log: Path | None = None
    output: int | None = None


def launch(command: Command) -> subprocess.Popen[bytes]:
    """Start a child in a session of its own, so that a Ctrl-C in the terminal reaches only us.

    Call it from the main thread: the kernel's signal comes when the thread that started the child ends.
    """
    errors = _open_log(command.log) if command.log else sys.stderr.fileno()
    try:
        return subprocess.Popen(  # noqa: S603  (a list of our own making, no shell)
            list(command.argv),
            env=dict(command.env),
            cwd="/" if command.account else None,
            stdin=subprocess.DEVNULL,
            stdout=errors if command.output is None else command.output,
            stderr=errors,
            start_new_session=True,
            pass_fds=tuple(command.descriptors),
            preexec_fn=die_with_parent(command.death),  # noqa: PLW1509  (the hook only calls prctl)
            **_identity(command.account),
        )
    finally:
        if command.log:
            os.close(errors)


def die_with_parent(signum: signal.Signals) -> Callable[[], None]:
    """A hook for the new child, run after it changed its user (which would undo prctl) and before it executes.

    The kernel then sends `signum` to the child when we end in any way, `kill -9` included.
    """
    parent = os.getpid()

    def arm() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(signum))
        if os.getppid() != parent:  # we died between the fork and prctl
            os._exit(1)

    return arm


def finish(process: subprocess.Popen[bytes], *, grace: float) -> int:
    """Wait up to `grace` seconds for a child that was asked to end, then kill what is left of its process group.

    Returns its exit status. The group is killed before the child is reaped, while its number cannot be another's.
    """
    deadline = time.monotonic() + grace
    while process.returncode is None and not _has_ended(process) and time.monotonic() < deadline:
        time.sleep(0.005)
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


def _identity(account: Account | None) -> dict[str, Any]:
    return {"user": account.uid, "group": account.gid, "extra_groups": []} if account else {}


def _open_log(path: Path) -> int:
    if path.exists() and path.stat().st_size > _LOG_BYTES:
        path.replace(path.with_name(f"{path.name}.1"))
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
