"""The sweep's side of jobs: nothing that was accepted is forgotten, whichever process dies.

Any number of processes may sweep: an advisory lock lets one at a time through.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import and_, delete, or_, select, text
from sqlalchemy.orm import Session

from app.errors import KINDS, Code
from app.jobs.changes import NewEvent, change
from app.jobs.database import Database
from app.jobs.leases import ENDED, FREED, NOW, close_stages
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

    def sweep(self) -> list[str]:
        """Rescue expired leases, forget old idempotency keys; the jobs to announce to the workers (again)."""
        with self._database.transaction() as session:
            if not session.scalar(text(f"SELECT pg_try_advisory_xact_lock({SWEEP_LOCK})")):
                return []
            for job in _expired(session):
                _rescue(session, job)
            session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < NOW - self._idempotency))
            return self._unheard(session)

    def _unheard(self, session: Session) -> list[str]:
        """Queued jobs that are due and were not announced lately; marks them as announced."""
        due = or_(
            and_(Job.not_before.is_(None), Job.announced_at < NOW - self._resend),
            and_(Job.not_before <= NOW, or_(Job.announced_at < Job.not_before, Job.announced_at < NOW - self._resend)),
        )
        jobs = session.scalars(
            select(Job).where(Job.status == Status.QUEUED, due).order_by(Job.id).limit(_BATCH)
            .with_for_update(skip_locked=True)
        ).all()
        for job in jobs:
            change(session, job.id, announced_at=NOW)
        return [job.id for job in jobs]


def _expired(session: Session) -> Sequence[Job]:
    return session.scalars(
        select(Job).where(Job.status.in_(HELD), Job.lease_until < NOW).limit(_BATCH).with_for_update(skip_locked=True)
    ).all()


def _rescue(session: Session, job: Job) -> None:
    """Queue the job again, or end it when its attempts are used up or it was being cancelled.

    A job that has recorded a publish is never ended here: its commit may stand on the Hub.
    """
    lost: dict[str, Any] = {
        "code": Code.WORKER_LOST, "message": f"worker {job.lease_owner} went away during {job.stage or 'the start'}",
        "stage": job.stage, "retryable": True, "hint": KINDS[Code.WORKER_LOST].hint, "names": {},
    }
    if job.publishing is None and job.status == Status.CANCELLING:
        change(session, job.id, events=[NewEvent(type="job.cancelled")], **ENDED, status=Status.CANCELLED)
    elif job.publishing is None and job.attempt >= job.max_attempts:
        # the last fault that a worker could name says more than that the worker is gone
        change(
            session, job.id, events=[NewEvent(type="job.failed", level="error", data=lost)],
            **ENDED, status=Status.FAILED, error=lost,
        )
    else:
        change(
            session, job.id, events=[NewEvent(type="job.requeued", level="warning", data=lost)],
            **FREED, status=Status.QUEUED, error=lost, not_before=NOW, announced_at=NOW - timedelta(days=1),
        )
    close_stages(session, job.id)
