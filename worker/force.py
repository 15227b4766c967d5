"""Ending work that cannot be asked to stop: a call deep in the Hub's client."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import structlog

from worker.heartbeat import Heartbeat

log = structlog.get_logger()

DYING_STATUS = 75
PATIENCE_SECONDS = 2.0


@contextmanager
def stopped_by_force(
    heartbeat: Heartbeat, *, abandon: Callable[[], None], too_late: Callable[[], bool] = lambda: False,
    lock: AbstractContextManager[object] | None = None, patience_seconds: float = PATIENCE_SECONDS,
) -> Iterator[None]:
    """If the work inside has to stop and does not within seconds, settle the job by `abandon` and end this process.

    Not where it is `too_late`. That is asked for the last time under `lock`, and the job is settled under it too:
    whoever passes the point of no return with the lock in hand is either seen here or does not come to it.
    """
    over = threading.Event()
    guard = lock or nullcontext()

    def due() -> bool:
        return heartbeat.stopping() and not too_late() and not over.is_set()

    def watch() -> None:
        while not over.wait(0.2):
            if due() and not over.wait(patience_seconds):
                with guard:
                    if due():
                        _end(abandon)

    watcher = threading.Thread(target=watch, name="force", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


@contextmanager
def dying_at_deadline(seconds: float) -> Iterator[Callable[[], None]]:
    """A clock, begun by calling what is yielded, that ends this process: nothing is sent after it, whatever hangs."""
    timer = threading.Timer(seconds, os._exit, [DYING_STATUS])
    timer.daemon = True
    try:
        yield timer.start
    finally:
        timer.cancel()


def _end(abandon: Callable[[], None]) -> None:
    """Whatever settling comes to: a process that stayed would work on for a job that is not its own."""
    log.warning("work.abandoned")
    try:
        abandon()
    finally:
        os._exit(DYING_STATUS)
