"""Ending work that cannot be asked to stop: a call deep in the Hub's client."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from worker.heartbeat import Heartbeat

log = structlog.get_logger()

DYING_STATUS = 75
PATIENCE_SECONDS = 2.0


@contextmanager
def stopped_by_force(heartbeat: Heartbeat, *, abandon: Callable[[], None]) -> Iterator[None]:
    """If the work inside has to stop and does not within seconds, settle the job by `abandon` and end this process."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.2):
            if heartbeat.stopping() and not over.wait(PATIENCE_SECONDS):
                log.warning("work.abandoned")
                try:
                    abandon()
                finally:
                    os._exit(DYING_STATUS)

    watcher = threading.Thread(target=watch, name="force", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
