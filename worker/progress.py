"""Progress of the running stage, written to the job in small batches."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import structlog

from app.counters import counters
from app.jobs.changes import NewEvent
from app.jobs.database import DatabaseAway
from app.jobs.leases import Lease, Leases
from app.tracing import tracing
from worker.crash import CrashPoints
from worker.patience import Patience

log = structlog.get_logger()

FLUSH_SECONDS = 0.5


class Progress:
    """Stages, steps and warnings as they come; at most two writes a second."""

    def __init__(
        self, leases: Leases, lease: Lease, *, patiently: Patience, crash: CrashPoints,
        began: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`began` is told the name of each stage that begins."""
        self._began = began
        self._patiently = patiently
        self._crash = crash
        self._leases = leases
        self._lease = lease
        self._stage = ""
        self._total = 0.0
        self._unit = ""
        self._done = 0.0
        self._started = self._flushed = time.monotonic()
        self._events: list[NewEvent] = []
        self.seconds: dict[str, float] = {}
        self.spans = ExitStack()
        """the open stage's span; whoever ends the attempt closes it"""

    @property
    def stage(self) -> str:
        return self._stage

    def begin(self, name: str, *, total: float = 0, unit: str = "") -> None:
        """Close the stage before, if any, and open this one."""
        self.close()
        self._stage, self._total, self._unit, self._done = name, total, unit, 0.0
        self._started = time.monotonic()
        self._began(name)
        self.spans.enter_context(tracing.span(f"stage.{name}"))
        self._patiently(lambda: self._leases.begin_stage(self._lease, name))
        self._crash.reach(f"{name}.begun")

    def close(self) -> None:
        """Write what is not written yet."""
        if self._stage:
            spent = time.monotonic() - self._started
            self.seconds[self._stage] = self.seconds.get(self._stage, 0.0) + spent
            self.flush()
            log.info("stage.ended", stage=self._stage, seconds=round(spent, 3))
            self._crash.reach(f"{self._stage}.done")
            self._stage = ""
            self.spans.close()

    def step(self, *, done: float, event: NewEvent | None = None) -> None:
        """`done` of the stage's total; never falls."""
        if self._unit == "bytes" and done > self._done:
            counters.add("spear_bytes", done - self._done, stage=self._stage)
        self._done = max(self._done, done)
        if event:
            self._events.append(event)
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def add(self, event: NewEvent) -> None:
        """An event without progress."""
        self._events.append(event)

    def flush(self) -> None:
        """Write progress and events now; while the database is away they are kept for the next time."""
        self._flushed = time.monotonic()
        try:
            self._leases.report(self._lease, progress=self._view(), events=self._events)
        except DatabaseAway as error:
            log.warning("progress.kept_back", error=type(error).__name__)
        else:
            self._events = []

    def _view(self) -> dict[str, Any] | None:
        if self._total <= 0:
            return None
        share = min(1.0, self._done / self._total)
        elapsed = time.monotonic() - self._started
        eta = round(elapsed * (1 - share) / share, 1) if share > 0.01 else None
        return {
            "percent": round(100 * share, 1), "done": self._done, "total": self._total, "unit": self._unit,
            "eta_seconds": eta,
        }
