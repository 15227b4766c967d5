"""The two outputs: what was asked for goes to stdout, everything else to stderr."""

import json
from enum import IntEnum
from typing import Any

from rich.console import Console

from app.client.types import Progress

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


def moment(at: str) -> str:
    """A time of the service, which is in UTC, to the second."""
    return at[:19].replace("T", " ")


def left(amount: Progress | None) -> str:
    """The time that the stage still takes, where it can be told."""
    eta = amount["eta_seconds"] if amount else None
    return f"{span(eta)} left" if eta is not None else ""


def total(amount: Progress) -> str:
    """The stage's amount of work."""
    return size(amount["total"]) if amount["unit"] == "bytes" else f"{amount['total']:.4g} {amount['unit']}"
