"""Leaving the network: the child computes on files that strangers made, so it shall reach nothing."""

import ctypes
from pathlib import Path

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def leave_network() -> bool:
    """Move into an empty network namespace; False where the platform does not allow it (see docs/operations.md).

    Linux, unshare(2): as root at once, otherwise by a user namespace of our own, which only a process with a single
    thread may enter: call it before torch is imported.
    """
    return bool(_libc.unshare(_CLONE_NEWNET) == 0 or _libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0)


def has_network() -> bool:
    """Whether this process sees an interface beside the loopback."""
    lines = Path("/proc/self/net/dev").read_text().splitlines()[2:]
    return any(line.partition(":")[0].strip() != "lo" for line in lines)
