"""The sweep's side of jobs: nothing that was accepted is forgotten, whichever process dies.

Any number of processes may sweep: an advisory lock lets one at a time through.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Select, delete, func, or_, select, text, update
from sqlalchemy.orm import Session

from app.errors import KINDS, Code
from app.jobs.changes import NewEvent, change
from app.jobs.database import Database
from app.jobs.leases import ENDED, FREED, NOW, UNHEARD, close_stages
from app.jobs.states import HELD, Status
from app.jobs.tables import IdempotencyKey, Job

SWEEP_LOCK = 7_300_002
_BATCH = 500


class Rescue:
    """Finds the jobs that nobody works on and makes them go on."""

    def __init__(self, database: Database, *, resend_seconds: float, idempotency_hours: float) -> None:
        self._database = database
        self._resend = timedelta(seconds=resend_seconds)
        self._idempotency = timedelta(hours=idempotency_hours)

    def sweep(self, *, waiting: int = 0) -> list[str]:
        """Rescue expired leases, forget old idempotency keys; the jobs to announce to the workers (again).

        `waiting` messages are with the broker already: behind busy workers nothing is repeated. Jobs that end here
        are announced too, so that a worker clears their directory.
        """
        with self._database.transaction() as session:
            if not session.scalar(text(f"SELECT pg_try_advisory_xact_lock({SWEEP_LOCK})")):
                return []
            ended = [job.id for job in _expired(session) if _rescue(session, job)]
            ended += [_end_late(session, job).id for job in _late(session)]
            session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < NOW - self._idempotency))
            queued = session.scalar(select(func.count()).where(Job.status == Status.QUEUED)) or 0
            return ended + self._unheard(session, limit=min(_BATCH, queued) - waiting)

    def _unheard(self, session: Session, *, limit: int) -> list[str]:
        """Queued jobs that are due and were not announced lately; marks them as announced."""
        if limit <= 0:
            return []
        query = unheard(self._resend).limit(limit).with_for_update(skip_locked=True)
        found = list(session.scalars(query))
        session.execute(update(Job).where(Job.id.in_(found)).values(announced_at=NOW))
        return sorted(found)


def unheard(resend: timedelta) -> Select[str]:
    """Ids of queued jobs that are due and were not announced for so long, those first that wait longest for it."""
    due = or_(Job.not_before.is_(None), Job.not_before <= NOW)
    return (
        select(Job.id).where(Job.status == Status.QUEUED, Job.announced_at < func.now() - resend, due)
        .order_by(Job.announced_at)
    )


def expired() -> Select[Job]:
    """Jobs whose worker was not heard of for longer than its lease."""
    return select(Job).where(Job.status.in_(HELD), Job.lease_until < NOW)


def late() -> Select[Job]:
    """Queued jobs past their deadline; not those whose commit may stand on the Hub."""
    return select(Job).where(Job.status == Status.QUEUED, Job.deadline < func.now(), Job.publishing.is_(None))


def _expired(session: Session) -> Sequence[Job]:
    return session.scalars(expired().limit(_BATCH).with_for_update(skip_locked=True)).all()


def _late(session: Session) -> Sequence[Job]:
    return session.scalars(late().limit(_BATCH).with_for_update(skip_locked=True)).all()


def _end_late(session: Session, job: Job) -> Job:
    """A job that could not start in time, or that waited for another attempt until its time was over."""
    if job.started_at is None:
        error = _error(Code.QUEUE_EXPIRED, "no worker was free before the job's deadline (max_queue_seconds)", job)
    else:
        error = _overrun(job)
    _fail(session, job, error)
    return job


def _overrun(job: Job) -> dict[str, Any]:
    seconds = f"{job.max_runtime_seconds:g}" if job.max_runtime_seconds is not None else "its"
    return _error(Code.RUNTIME_EXCEEDED, f"the job did not end within {seconds} seconds of its first start", job)


def _fail(session: Session, job: Job, error: dict[str, Any]) -> None:
    change(
        session, job.id, events=[NewEvent(type="job.failed", level="error", data=error)],
        **ENDED, status=Status.FAILED, error=error,
    )


def _error(code: Code, message: str, job: Job) -> dict[str, Any]:
    kind = KINDS[code]
    return {
        "code": code, "message": message, "stage": job.stage, "retryable": kind.retryable, "hint": kind.hint,
        "names": {},
    }


def _rescue(session: Session, job: Job) -> bool:
    """Queue the job again, or end it when its attempts are used up or it was being cancelled; whether it was ended.

    A job that has recorded a publish is never ended here: its commit may stand on the Hub.
    """
    lost = _error(Code.WORKER_LOST, f"worker {job.lease_owner} went away during {job.stage or 'the start'}", job)
    overrun = job.deadline is not None and job.lease_until is not None and job.deadline < job.lease_until
    spent = overrun or job.status == Status.CANCELLING or job.attempt >= job.max_attempts
    over = job.publishing is None and spent
    if over and job.status == Status.CANCELLING:
        change(session, job.id, events=[NewEvent(type="job.cancelled")], **ENDED, status=Status.CANCELLED)
    elif over:
        _fail(session, job, _overrun(job) if overrun else lost)
    else:
        change(
            session, job.id, events=[NewEvent(type="job.requeued", level="warning", data=lost)],
            **FREED, status=Status.QUEUED, error=lost, not_before=NOW, announced_at=UNHEARD,
        )
    close_stages(session, job.id)
    return over
