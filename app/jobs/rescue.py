"""The sweep's side of jobs: nothing that was accepted is forgotten, whichever process dies.

Any number of processes may sweep: an advisory lock lets one at a time through.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import and_, delete, func, or_, select, text, update
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
            session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < NOW - self._idempotency))
            queued = session.scalar(select(func.count()).where(Job.status == Status.QUEUED)) or 0
            return ended + self._unheard(session, limit=min(_BATCH, queued - waiting))

    def _unheard(self, session: Session, *, limit: int) -> list[str]:
        """Queued jobs that are due and were not announced lately; marks them as announced."""
        if limit <= 0:
            return []
        due = or_(
            and_(Job.not_before.is_(None), Job.announced_at < NOW - self._resend),
            and_(Job.not_before <= NOW, or_(Job.announced_at < Job.not_before, Job.announced_at < NOW - self._resend)),
        )
        jobs = session.scalars(
            select(Job).where(Job.status == Status.QUEUED, due).order_by(Job.id).limit(limit)
            .with_for_update(skip_locked=True)
        ).all()
        found = [job.id for job in jobs]
        session.execute(update(Job).where(Job.id.in_(found)).values(announced_at=NOW))
        return found


def _expired(session: Session) -> Sequence[Job]:
    return session.scalars(
        select(Job).where(Job.status.in_(HELD), Job.lease_until < NOW).limit(_BATCH).with_for_update(skip_locked=True)
    ).all()


def _rescue(session: Session, job: Job) -> bool:
    """Queue the job again, or end it when its attempts are used up or it was being cancelled; whether it was ended.

    A job that has recorded a publish is never ended here: its commit may stand on the Hub.
    """
    lost: dict[str, Any] = {
        "code": Code.WORKER_LOST, "message": f"worker {job.lease_owner} went away during {job.stage or 'the start'}",
        "stage": job.stage, "retryable": True, "hint": KINDS[Code.WORKER_LOST].hint, "names": {},
    }
    over = job.publishing is None and (job.status == Status.CANCELLING or job.attempt >= job.max_attempts)
    if over and job.status == Status.CANCELLING:
        change(session, job.id, events=[NewEvent(type="job.cancelled")], **ENDED, status=Status.CANCELLED)
    elif over:
        change(
            session, job.id, events=[NewEvent(type="job.failed", level="error", data=lost)],
            **ENDED, status=Status.FAILED, error=lost,
        )
    else:
        change(
            session, job.id, events=[NewEvent(type="job.requeued", level="warning", data=lost)],
            **FREED, status=Status.QUEUED, error=lost, not_before=NOW, announced_at=UNHEARD,
        )
    close_stages(session, job.id)
    return over
