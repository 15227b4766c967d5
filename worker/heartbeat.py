"""Keeps the lease alive beside the work, and hears when the work has to stop."""

import threading
import time
from collections.abc import Callable
from enum import StrEnum
from types import TracebackType
from typing import Self

import structlog

from app.jobs.database import DatabaseError
from app.jobs.leases import Lease, LeaseLostError, Leases
from app.jobs.states import Status

log = structlog.get_logger()

LOOK_SECONDS = 1.0


class Reason(StrEnum):
    """Why the work has to stop."""

    CANCELLED = "cancelled"
    LOST = "lost"
    DRAINING = "draining"
    STALLED = "stalled"
    OVERRUN = "overrun"


class StoppedError(Exception):
    """The work must stop now, for `reason`."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


class Heartbeat:
    """A thread with its own connection that renews the lease and looks for a cancellation every second.

    Where Postgres is away, the lease is given up only when it must have expired: until then nobody else can hold it.
    """

    def __init__(
        self, leases: Leases, lease: Lease, *, lease_seconds: float, stall_seconds: float, draining: Callable[[], bool],
        seconds_left: float | None = None, undecided: Callable[[], bool] = lambda: False,
    ) -> None:
        """`seconds_left` until the job's deadline, which does not count while a publish is `undecided`."""
        self._leases = leases
        self._lease = lease
        self._lease_seconds = lease_seconds
        self._stall_seconds = stall_seconds
        self._draining = draining
        self._undecided = undecided
        self._ends = None if seconds_left is None else time.monotonic() + seconds_left
        self._over = threading.Event()
        self._renewed = self._progress = time.monotonic()
        self._reason: Reason | None = None
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def begin_stage(self, *, stall_seconds: float) -> None:
        """A stage begins that may be without progress for so long."""
        self._stall_seconds = stall_seconds
        self.progressed()

    def progressed(self) -> None:
        """The work has moved on; without this for the stage's `stall_seconds` it is ended."""
        self._progress = time.monotonic()

    def stopping(self) -> bool:
        """Whether the work has to stop."""
        if self._reason is None and self._draining():
            self._reason = Reason.DRAINING
        return self._reason is not None

    def check(self) -> None:
        """Raises `StoppedError` if the work has to stop."""
        if self.stopping():
            assert self._reason is not None
            raise StoppedError(self._reason)

    def _beat(self) -> None:
        while not self._over.wait(min(LOOK_SECONDS, self._lease_seconds / 4)):
            try:
                self._look()
            except LeaseLostError:
                self._reason = Reason.LOST
            except DatabaseError as error:
                log.warning("heartbeat.failed", job=self._lease.job_id, error=type(error).__name__)
            self._judge()
            if self._reason is Reason.LOST:
                return

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._renewed >= self._lease_seconds / 4:
            status = self._leases.renew(self._lease)
            self._renewed = now
        else:
            status = self._leases.look(self._lease)
        if status is Status.CANCELLING:
            self._reason = Reason.CANCELLED

    def _judge(self) -> None:
        now = time.monotonic()
        if now - self._renewed > self._lease_seconds:
            self._reason = Reason.LOST
        elif self._reason is None and now - self._progress > self._stall_seconds:
            self._reason = Reason.STALLED
        elif self._reason is None and self._ends is not None and now > self._ends and not self._undecided():
            self._reason = Reason.OVERRUN
