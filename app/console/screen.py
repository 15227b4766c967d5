"""The two outputs: what was asked for goes to stdout, everything else to stderr."""

import json
from enum import IntEnum
from typing import Any

from rich.console import Console

err = Console(stderr=True, highlight=False)
out = Console(highlight=False)


class Exit(IntEnum):
    """How a command ends (docs/cli.md)."""

    OK = 0
    FAILED = 1
    """a job did not succeed, a request was refused, a check found something"""
    USAGE = 2
    """the command line itself is wrong"""
    AWAY = 3
    """the service, its database or the Hub does not answer: the same command may succeed later"""
    INTERRUPTED = 130
    """Ctrl-C; a job that was watched goes on"""


def emit(document: Any) -> None:
    """For programs: one line of JSON on stdout."""
    print(json.dumps(document))


def figure(value: float | None) -> str:
    """A measured number, short."""
    return "-" if value is None else f"{value:.4g}"


def size(count: float) -> str:
    """A number of bytes, short, in powers of ten as disks and networks are sold."""
    for unit, word in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= unit:
            return f"{count / unit:.3g} {word}"
    return f"{count:.0f} B"


def span(seconds: float) -> str:
    """A time, short: 4 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
