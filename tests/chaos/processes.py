"""The service's processes, seen from outside: who is whose child, and signals to them."""

import os
import signal
from collections.abc import Iterable
from pathlib import Path


def below(pid: int) -> list[int]:
    """All descendants of a process."""
    try:
        found = [int(child) for task in Path(f"/proc/{pid}/task").iterdir()
                 for child in (task / "children").read_text().split()]  # fmt: skip
    except (FileNotFoundError, ProcessLookupError):
        return []
    return found + [grandchild for child in found for grandchild in below(child)]


def command(pid: int) -> bytes:
    """The command line; empty for a process that is gone, or dead and not yet buried."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def send(pids: Iterable[int], number: signal.Signals) -> int:
    """Send a signal; how many processes were there to get it."""
    sent = 0
    for pid in pids:
        try:
            os.kill(pid, number)
            sent += 1
        except ProcessLookupError:
            continue
    return sent
