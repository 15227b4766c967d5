"""Keeps named parts running: starts them in order, restarts any that dies, stops all in reverse order."""

import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import structlog

from app.errors import SpearError
from app.local import processes
from app.local.processes import Command

_POLL_SECONDS = 0.1
_FIRST_DELAY = 0.5
_LONGEST_DELAY = 30.0
_STEADY_SECONDS = 10.0  # a part that ran for so long is restarted at once when it dies

log = structlog.get_logger()


class Part(Protocol):
    """Anything that can be started, watched and stopped. Started again, it is found at the same address."""

    name: str

    @property
    def running(self) -> bool: ...

    def start(self) -> None: ...

    def ask_to_stop(self) -> None:
        """Begin to stop, without waiting."""

    def stop(self) -> None:
        """Stop, and wait until nothing of it is left."""


class Program:
    """A part that is one child process."""

    def __init__(
        self, name: str, argv: Sequence[str], *, env: Mapping[str, str], grace: float = 10.0,
        death: signal.Signals = signal.SIGKILL,
    ) -> None:
        self.name = name
        self._command = Command(argv=argv, env=env, death=death)
        self._grace = grace
        self._process: subprocess.Popen[bytes] | None = None
        self._asked = False

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        self._asked = False
        self._process = processes.launch(self._command)

    def ask_to_stop(self) -> None:
        """Send the signal once: for some programs a second one means haste."""
        if self._process is not None and self.running and not self._asked:
            self._asked = True
            self._process.send_signal(self._command.end)

    def stop(self) -> None:
        self.ask_to_stop()
        if self._process is not None:
            processes.finish(self._process, grace=self._grace)


@dataclass
class _Watch:
    """One part's restarts: when it last started, how long the next wait is, when that is over."""

    part: Part
    started: float
    delay: float = 0.0
    due: float | None = None


class Supervisor:
    """Runs in the main thread, since children die with the thread that started them."""

    def __init__(self, *, longest_delay: float = _LONGEST_DELAY) -> None:
        self._longest_delay = longest_delay
        self._watches: list[_Watch] = []

    def add(self, part: Part) -> None:
        """Start a part and keep it running from now on; its failure to start is the caller's to see."""
        part.start()
        log.info("part.started", part=part.name)
        self._watches.append(_Watch(part, started=time.monotonic()))

    def watch(self, *, until: Callable[[], bool]) -> None:
        """Restart what dies, with exponential back-off, until `until` says true."""
        while not until():
            for watch in self._watches:
                _look_after(watch, now=time.monotonic(), longest_delay=self._longest_delay)
            time.sleep(_POLL_SECONDS)

    def stop(self) -> None:
        """Stop all parts in reverse order; those that can begin at once do."""
        for watch in reversed(self._watches):
            watch.part.ask_to_stop()
        for watch in reversed(self._watches):
            watch.part.stop()
            log.info("part.stopped", part=watch.part.name)
        self._watches.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _look_after(watch: _Watch, *, now: float, longest_delay: float) -> None:
    if watch.part.running:
        return
    if watch.due is None:
        steady = now - watch.started > _STEADY_SECONDS
        watch.delay = _FIRST_DELAY if steady or not watch.delay else min(2 * watch.delay, longest_delay)
        watch.due = now + watch.delay
        log.warning("part.died", part=watch.part.name, restart_seconds=watch.delay)
    elif now >= watch.due:
        _restart(watch)


def _restart(watch: _Watch) -> None:
    watch.due, watch.started = None, time.monotonic()
    try:
        watch.part.start()
    except (SpearError, OSError) as failure:
        log.warning("part.start_failed", part=watch.part.name, reason=str(failure))
