"""Dying with one's parent, so that a killed worker leaves no process behind (Linux: prctl(2), PR_SET_PDEATHSIG)."""

import contextlib
import ctypes
import os
import signal

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_libc = ctypes.CDLL(None, use_errno=True)


def die_with(parent: int) -> None:
    """Be killed when the thread of process `parent` that started this process ends; call it in the new process."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it was gone before the call
        os._exit(1)


def adopt() -> None:
    """From now on what our children leave behind is ours to bury: a container's first process might never do it."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def bury(group: int) -> None:
    """Wait until of a process group that was killed, and whose orphans we have adopted, nothing is left."""
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-group, 0)
