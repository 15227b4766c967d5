"""The supervisor of one job: claims it, holds its lease and the credentials, and settles it.

It never imports torch; the arithmetic is done by a child that has neither credentials nor database nor network.
"""

from collections.abc import Callable
from typing import Any

import structlog
from opentelemetry.trace import SpanKind
from structlog.contextvars import bound_contextvars

from app.errors import KINDS, Code, SpearError
from app.jobs.database import Database, DatabaseAway
from app.jobs.leases import Lease, LeaseLostError, Leases
from app.jobs.states import Status
from app.jobs.tables import Job
from app.logs import redact
from app.settings import Settings
from app.tracing import mark_failed, tracing
from worker.crash import CrashPoints
from worker.heartbeat import Heartbeat, Reason, StoppedError
from worker.patience import Patience
from worker.progress import Progress
from worker.publishing import Publication
from worker.run import Run
from worker.workspace import Workspace, clear

log = structlog.get_logger()

RETRIED = frozenset(
    {
        Code.HUB_UNAVAILABLE, Code.NOT_READY, Code.OUT_OF_MEMORY, Code.COMPUTE_CRASHED, Code.STALLED,
        Code.DISK_FULL, Code.WORKER_LOST, Code.INTERNAL_ERROR,
    }
)
"""faults that may pass: the job is queued again while it has attempts left"""


def supervise(*, settings: Settings, owner: str, draining: Callable[[], bool]) -> None:
    """Work on one job after the other, as long as one may be claimed: a job that ends frees a place of its key."""
    database = Database(settings.database_url, pool_size=2)
    try:
        leases = Leases(database, seconds=settings.lease_seconds, max_running=settings.max_running_jobs)
        while not draining():
            clear(settings.home, unfinished=leases.unfinished)
            job = leases.claim_next(owner=owner)
            if job is None:
                return
            log.info("job.claimed", job=job.id, attempt=job.attempt, token=job.lease_token)
            _attempt(job, settings=settings, database=database, leases=leases, draining=draining)
    except DatabaseAway as error:
        log.warning("database.gone", error=type(error).__name__)
    finally:
        database.close()


def _attempt(
    job: Job, *, settings: Settings, database: Database, leases: Leases, draining: Callable[[], bool]
) -> None:
    """One attempt. Returns when the job is settled, handed back, or somebody else's."""
    about = {"job": job.id, "request_id": job.request_id}
    with (
        bound_contextvars(**about),
        tracing.span("attempt", parent=job.traceparent, kind=SpanKind.CONSUMER, job=job.id, attempt=job.attempt),
    ):
        try:
            _Attempt(job, settings=settings, database=database, leases=leases, draining=draining).make()
        except LeaseLostError:
            log.warning("lease.lost", job=job.id)


class _Attempt:
    """One attempt at a claimed job."""

    def __init__(
        self, job: Job, *, settings: Settings, database: Database, leases: Leases, draining: Callable[[], bool]
    ) -> None:
        self._job = job
        self._settings = settings
        self._leases = leases
        self._lease = Lease(job_id=job.id, token=job.lease_token)
        self._workspace = Workspace(settings.home, job.id)
        self._crash = crash = CrashPoints(settings.crash_at, attempt=job.attempt, target=job.target_repo)
        self._patiently = Patience(seconds=settings.lease_seconds)
        self._progress = Progress(
            leases, self._lease, patiently=self._patiently, crash=crash, began=self._allow_stage
        )
        self._heartbeat = Heartbeat(
            leases, self._lease, lease_seconds=settings.lease_seconds, stall_seconds=settings.stall_seconds,
            draining=draining, seconds_left=_seconds_left(job), undecided=lambda: self._publication.uncertain,
        )
        self._publication = Publication(
            job, lease=self._lease, leases=leases, settings=settings, progress=self._progress,
            heartbeat=self._heartbeat, crash=crash, patiently=self._patiently, abandon=self._abandon,
        )
        self._run = Run(
            job=job, lease=self._lease, leases=leases, database=database, settings=settings,
            workspace=self._workspace, progress=self._progress, heartbeat=self._heartbeat,
            patiently=self._patiently, publication=self._publication, abandon=self._abandon, crash=crash,
        )

    def make(self) -> None:
        """Run the stages and settle; whatever goes wrong ends in a state that the job's row tells."""
        self._crash.reach("claim.written")
        with self._heartbeat, self._progress.spans:
            try:
                self._work()
            except LeaseLostError:
                # a cancellation came between our last look and a write that only a running job allows
                if self._leases.look(self._lease) is not Status.CANCELLING:
                    raise
                self._end(Status.CANCELLED)

    def _work(self) -> None:
        try:
            result = self._run.make()
            self._progress.close()
            self._end(Status.SUCCEEDED, result=result)
        except StoppedError as stop:
            self._stopped(stop.reason)
        except SpearError as error:
            self._failed(error)
        except (LeaseLostError, *DatabaseAway):
            raise
        except Exception as error:  # the last line of defence: the job must not hang
            log.exception("attempt.crashed", job=self._job.id)
            self._failed(SpearError(Code.INTERNAL_ERROR, f"the worker failed: {type(error).__name__}"))

    def _allow_stage(self, name: str) -> None:
        self._heartbeat.begin_stage(stall_seconds=self._settings.stall_seconds_of(name))

    def _abandon(self) -> None:
        """Settle although the main thread is busy in an upload; the process ends right after."""
        try:
            self._heartbeat.check()
        except StoppedError as stop:
            self._stopped(stop.reason)

    def _stopped(self, reason: Reason) -> None:
        if reason is Reason.CANCELLED:
            self._crash.reach("cancel.seen")
            self._end(Status.CANCELLED)
        elif reason is Reason.DRAINING:
            log.info("job.handed_back", job=self._job.id)
            self._hand_back(charge=False)
        elif reason is Reason.STALLED:
            seconds = self._settings.stall_seconds_of(self._progress.stage)
            self._failed(SpearError(Code.STALLED, f"no progress for {seconds:g} seconds"))
        elif reason is Reason.OVERRUN:
            seconds = self._job.max_runtime_seconds or 0
            message = f"the job did not end within {seconds:g} seconds of its first start"
            self._failed(SpearError(Code.RUNTIME_EXCEEDED, message))

    def _failed(self, error: SpearError) -> None:
        view = self._view(error)
        mark_failed(error.code)
        log.warning("attempt.failed", job=self._job.id, code=error.code, message=view["message"])
        again = error.code in RETRIED and self._job.attempt < self._job.max_attempts
        if again or self._publication.uncertain:
            delay = min(60, 2**self._job.attempt)
            self._hand_back(error=view, delay_seconds=delay)
        elif self._patiently(lambda: self._leases.look(self._lease)) is Status.CANCELLING:
            self._end(Status.CANCELLED)
        else:
            self._end(Status.FAILED, error=view)

    def _hand_back(self, **values: Any) -> None:
        self._patiently(lambda: self._leases.hand_back(self._lease, **values))
        self._crash.reach("requeued")

    def _end(self, status: Status, **values: Any) -> None:
        self._patiently(lambda: self._leases.settle(self._lease, status, **values))
        self._crash.reach("settled")
        self._workspace.remove()
        self._crash.reach("workspace.removed")
        log.info("job.ended", job=self._job.id, status=status)

    def _view(self, error: SpearError) -> dict[str, Any]:
        kind = KINDS[error.code]
        names = {name: redact(str(value)) for name, value in error.names.items()}
        return {
            "code": error.code, "message": redact(error.message), "stage": self._progress.stage or self._job.stage,
            "retryable": kind.retryable, "hint": kind.hint, "names": names,
        }


def _seconds_left(job: Job) -> float | None:
    """From the claim to the job's deadline, both by the database's clock."""
    return None if job.deadline is None else (job.deadline - job.updated_at).total_seconds()
