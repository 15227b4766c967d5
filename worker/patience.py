"""Waiting for Postgres: a restart of the database must not cost a job its attempt."""

import time
from collections.abc import Callable
from typing import TypeVar

import structlog

from app.jobs.database import DatabaseAway

log = structlog.get_logger()

T = TypeVar("T")


class Patience:
    """Repeats a write while the database is away, for as long as the lease may still be ours."""

    def __init__(self, *, seconds: float) -> None:
        self._seconds = seconds

    def __call__(self, write: Callable[[], T]) -> T:
        """The write's outcome; raises the database's error once it has been away for too long."""
        deadline, pause = time.monotonic() + self._seconds, 0.2
        while True:
            try:
                return write()
            except DatabaseAway as error:
                if time.monotonic() + pause > deadline:
                    raise
                log.warning("database.away", error=type(error).__name__)
            time.sleep(pause)
            pause = min(5.0, pause * 2)
