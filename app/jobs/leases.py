"""The worker's side of a job: claim it under a lease, write under the fencing token, settle it.

Every write after the claim carries the token; a write that finds another token raises `LeaseLostError` and changes
nothing, so a worker that was paused for too long cannot spoil its successor's work. All clocks are the database's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, and_, case, func, or_, select, update
from sqlalchemy.orm import Session

from app.jobs.changes import NewEvent, change
from app.jobs.database import Database
from app.jobs.documents import put_documents
from app.jobs.formats import FORMAT
from app.jobs.order import next_job, take_turn
from app.jobs.states import ACTIVE, HELD, Status
from app.jobs.tables import Event, Job, Stage

T = TypeVar("T")
NOW = func.clock_timestamp()
LATE = timedelta(days=7)
"""how long after its end a job's commit is still looked for"""


UNHEARD = NOW - timedelta(days=1)
"""as if announced long ago: the next sweep announces it"""


class LeaseLostError(Exception):
    """Another worker, or the sweep, has taken the job."""


@dataclass(frozen=True, kw_only=True)
class Lease:
    """The right to work on a job, and the token that proves it."""

    job_id: str
    token: int


class Leases:
    """All writes that a worker makes to jobs."""

    def __init__(
        self, database: Database, *, seconds: float, max_running: int | None = None, known_format: int = FORMAT
    ) -> None:
        """`max_running` jobs at once of a key that has no limit of its own; None is any number.

        Rows of a format above `known_format` are left to others.
        """
        self._database = database
        self._known_format = known_format
        self._ttl = timedelta(seconds=seconds)
        self._max_running = max_running

    def claim_next(self, *, owner: str) -> Job | None:
        """Take the job that is next (see `app.jobs.order`); None if there is none, or none may be claimed now."""
        with self._database.transaction() as session:
            job_id = next_job(session, max_running=self._max_running, known_format=self._known_format)
            job = self._claim(session, job_id, owner=owner) if job_id else None
            if job:
                take_turn(session, job.owner)
            return job

    def claim(self, job_id: str, *, owner: str) -> Job | None:
        """Take this job if it is queued, or its lease has expired; None if it cannot be taken.

        A job that has recorded a publish may be taken beyond its attempts and its deadline, for the Hub's head has to
        be read.
        """
        with self._database.transaction() as session:
            return self._claim(session, job_id, owner=owner)

    def _claim(self, session: Session, job_id: str, *, owner: str) -> Job | None:
        expired = and_(Job.status.in_(HELD), Job.lease_until < NOW)
        due = and_(Job.status == Status.QUEUED, or_(Job.not_before.is_(None), Job.not_before <= NOW))
        in_time = or_(Job.deadline.is_(None), Job.deadline > NOW)
        free = or_(and_(Job.attempt < Job.max_attempts, in_time), Job.publishing.is_not(None))
        runtime = func.make_interval(0, 0, 0, 0, 0, 0, Job.max_runtime_seconds)  # null where there is none
        return change(
            session, job_id, where=(or_(due, expired), free, Job.format <= self._known_format),
            events=[NewEvent(type="job.claimed", data={"worker": owner})],
            status=_claimed_status(), lease_token=Job.lease_token + 1, lease_owner=owner, lease_until=NOW + self._ttl,
            attempt=Job.attempt + 1, started_at=func.coalesce(Job.started_at, NOW), progress=None,
            deadline=case((Job.started_at.is_(None), NOW + runtime), else_=Job.deadline),
        )

    def renew(self, lease: Lease) -> Status:
        """Extend the lease; the job's status, so that a cancellation is seen."""
        statement = (
            update(Job)
            .where(Job.id == lease.job_id, *_fence(lease))
            .values(lease_until=NOW + self._ttl)
            .returning(Job.status)
        )
        with self._database.transaction() as session:
            return Status(_owned(session.scalars(statement).one_or_none()))

    def check(self, lease: Lease) -> None:
        """Raises `LeaseLostError` unless the lease is ours and has not run out."""
        statement = select(Job.id).where(Job.id == lease.job_id, *_fence(lease), Job.lease_until > NOW)
        with self._database.transaction() as session:
            _owned(session.scalars(statement).one_or_none())

    def look(self, lease: Lease) -> Status:
        """The job's status, without a write."""
        statement = select(Job.status).where(Job.id == lease.job_id, *_fence(lease))
        with self._database.transaction() as session:
            return Status(_owned(session.scalars(statement).one_or_none()))

    def begin_stage(self, lease: Lease, name: str) -> None:
        """Close the stage before and open this one."""
        with self._database.transaction() as session:
            job = self._write(
                session, lease, events=[NewEvent(type="stage.started", stage=name)], stage=name, progress=None
            )
            close_stages(session, lease.job_id)
            session.add(Stage(job_id=lease.job_id, attempt=job.attempt, name=name))

    def report(
        self, lease: Lease, *, progress: dict[str, Any] | None = None, events: Sequence[NewEvent] = ()
    ) -> None:
        """Progress and events of the running stage."""
        values: dict[str, Any] = {} if progress is None else {"progress": progress}
        with self._database.transaction() as session:
            self._write(session, lease, events=events, **values)

    def record_publishing(
        self, lease: Lease, *, parent: str, manifest_sha256: str, summary: dict[str, Any], seconds: float
    ) -> None:
        """The point of no return: from here on the Hub's head decides how the job ends.

        Raises `LeaseLostError` too if the job is being cancelled: then nothing may be published.
        """
        with self._database.transaction() as session:
            self._write(
                session, lease, where=(Job.status == Status.RUNNING,),
                events=[NewEvent(type="publish.started", stage="publishing", data={"parent": parent})],
                publishing={"parent": parent, "manifest_sha256": manifest_sha256, "summary": summary},
                publish_deadline=NOW + timedelta(seconds=seconds), lease_until=NOW + self._ttl,
            )

    def forget_publishing(self, lease: Lease) -> None:
        """The recorded publish did not happen and cannot any more: attempts count, and a cancellation is heard."""
        event = NewEvent(type="publish.absent", level="warning", stage="publishing")
        with self._database.transaction() as session:
            self._write(session, lease, events=[event], publishing=None, publish_deadline=None)

    def note_target(self, lease: Lease, *, what: str, head: str) -> None:
        """This job has created its target: the repository, or the branch, at this head."""
        data = {"what": what, "head": head}
        self.report(lease, events=[NewEvent(type="target.created", stage="publishing", data=data)])

    def sought_in_vain(self, job: Job) -> Sequence[str]:
        """Jobs of the same target that ended lately without a commit, although they had recorded a publish."""
        recorded = select(Event.job_id).where(Event.type == "publish.started")
        told = select(Event.job_id).where(Event.type == "publish.late")
        query = select(Job.id).where(
            func.lower(Job.target_repo) == func.lower(job.target_repo), Job.target_branch == job.target_branch,
            Job.status.in_((Status.FAILED, Status.CANCELLED)), Job.ended_at > NOW - LATE,
            Job.error["names"]["commit"].is_(None), Job.id.in_(recorded), Job.id.not_in(told),
        )
        with self._database.transaction() as session:
            return session.scalars(query).all()

    def tell_late(self, job_id: str, *, repo: str, commit: str, manifest_sha256: str) -> None:
        """The commit of a job that has ended without one was found after all."""
        data = {"repo": repo, "commit": commit, "manifest_sha256": manifest_sha256}
        event = NewEvent(type="publish.late", level="warning", stage="publishing", data=data)
        with self._database.transaction() as session:
            change(session, job_id, where=(Job.status.in_((Status.FAILED, Status.CANCELLED)),), events=[event])

    def settle(
        self, lease: Lease, status: Status, *, result: dict[str, Any] | None = None,
        error: dict[str, Any] | None = None, documents: dict[str, Any] | None = None,
    ) -> None:
        """End the job."""
        level = "error" if status is Status.FAILED else "info"
        event = NewEvent(type=f"job.{status}", level=level, data=error or result or {})
        with self._database.transaction() as session:
            self._write(session, lease, events=[event], result=result, error=error, **ENDED, status=status)
            close_stages(session, lease.job_id)
            put_documents(session, lease.job_id, documents or {})

    def hand_back(
        self, lease: Lease, *, error: dict[str, Any] | None = None, delay_seconds: float = 0, charge: bool = True
    ) -> None:
        """Queue the job again: after a fault that may pass, or (not charged as an attempt) when the worker drains.

        Raises `LeaseLostError` too if nobody could claim the job then: it is left to the sweep, which ends it.
        """
        spent = Job.attempt - (0 if charge else 1)
        claimable = or_(spent < Job.max_attempts, Job.publishing.is_not(None))
        event = NewEvent(type="job.requeued", level="warning" if error else "info", data=error or {})
        with self._database.transaction() as session:
            self._write(
                session, lease, where=(Job.status == Status.RUNNING, claimable), events=[event], **FREED,
                status=Status.QUEUED, attempt=spent, error=error,
                not_before=NOW + timedelta(seconds=delay_seconds), announced_at=UNHEARD,
            )
            close_stages(session, lease.job_id)

    def unfinished(self, job_ids: Sequence[str]) -> set[str]:
        """Those of the jobs that have not ended: what lies on a disk for any other is rubbish."""
        query = select(Job.id).where(Job.id.in_(job_ids), Job.status.in_(ACTIVE))
        with self._database.transaction() as session:
            return set(session.scalars(query))

    def put_documents(self, lease: Lease, documents: dict[str, Any]) -> None:
        """Keep documents of a job that goes on."""
        with self._database.transaction() as session:
            self._write(session, lease)
            put_documents(session, lease.job_id, documents)

    def _write(
        self, session: Session, lease: Lease, *, where: Sequence[ColumnElement[bool]] = (),
        events: Sequence[NewEvent] = (), **values: Any,
    ) -> Job:
        return _owned(change(session, lease.job_id, where=(*_fence(lease), *where), events=events, **values))


FREED: dict[str, Any] = {"lease_owner": None, "lease_until": None, "lease_token": Job.lease_token + 1, "stage": None}
ENDED: dict[str, Any] = FREED | {"ended_at": NOW}


def close_stages(session: Session, job_id: str) -> None:
    """Give the open stage, if there is one, its end."""
    session.execute(update(Stage).where(Stage.job_id == job_id, Stage.ended_at.is_(None)).values(ended_at=NOW))


def hold_running(session: Session, lease: Lease) -> None:
    """Until this transaction ends the job stays ours and running: whoever cancels it waits for that.

    Raises `LeaseLostError` where it is not, a cancelled one too.
    """
    statement = (
        select(Job.id)
        .where(Job.id == lease.job_id, *_fence(lease), Job.status == Status.RUNNING)
        .with_for_update(read=True)
    )
    _owned(session.scalars(statement).one_or_none())


def _fence(lease: Lease) -> tuple[ColumnElement[bool], ...]:
    return (Job.lease_token == lease.token, Job.status.in_(HELD))


def _claimed_status() -> Any:
    return func.coalesce(func.nullif(Job.status, Status.QUEUED), Status.RUNNING)


def _owned(found: T | None) -> T:
    if found is None:
        raise LeaseLostError
    return found
