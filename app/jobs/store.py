"""The caller's side of jobs: submit, read, list, cancel."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.errors import Code, SpearError
from app.jobs.changes import NewEvent, change
from app.jobs.database import Database
from app.jobs.documents import get_document
from app.jobs.formats import FORMAT
from app.jobs.ids import new_id
from app.jobs.keys import Caller
from app.jobs.leases import ENDED, Lease, hold_running
from app.jobs.quotas import count_in
from app.jobs.states import ACTIVE, Kind, Status
from app.jobs.tables import Event, IdempotencyKey, Job, Stage

PREFIXES = {Kind.MERGE: "mrg", Kind.SCORES: "scr", Kind.EVALUATION: "evl", Kind.STUDY: "std"}


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A checked request, ready to become a row."""

    recipe: dict[str, Any]
    resolved: dict[str, Any]
    kind: Kind = Kind.MERGE
    target_repo: str | None = None
    target_branch: str | None = None
    labels: dict[str, str]
    warnings: Sequence[str] = ()
    planned_bytes: int = 0
    retry_of: str | None = None
    request_id: str | None = None
    traceparent: str | None = None
    priority: int = 0
    max_queue_seconds: float | None = None
    max_runtime_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Idempotency:
    """An `Idempotency-Key` and the digest of the body that came with it."""

    key: str
    body_digest: bytes


@dataclass(frozen=True, kw_only=True)
class Glimpse:
    """What tells whether a job has changed, and whose it is."""

    owner: str
    kind: str
    status: str
    version: int


class Store:
    """Jobs as their callers see them: each caller its own, an admin all."""

    def __init__(self, database: Database, *, max_attempts: int, idempotency_hours: float) -> None:
        self._database = database
        self._max_attempts = max_attempts
        self._window = timedelta(hours=idempotency_hours)

    def replayed(self, caller: Caller, idempotency: Idempotency) -> Job | None:
        """The job that this key made before.

        Raises `SpearError(idempotency_key_reused)` if the body was another.
        """
        with self._database.transaction() as session:
            return self._replay(session, caller, idempotency)

    def submit(
        self, submission: Submission, *, caller: Caller, idempotency: Idempotency | None = None,
        under: Lease | None = None,
    ) -> tuple[Job, bool]:  # fmt: skip
        """Make the job and queue it, in one transaction; and whether it was a replay.

        `under` is the running job that submits it: once its cancellation is confirmed, no more comes of it.

        Raises `SpearError(target_busy)` if another job is active for the target, `SpearError(quota_exceeded)` where
        the caller's keys have too many jobs or bytes already, `LeaseLostError` where `under` is not running any more.
        """
        job_id = new_id(PREFIXES[submission.kind])
        try:
            with self._database.transaction() as session:
                if under:
                    hold_running(session, under)
                if idempotency and not self._reserve(session, caller, idempotency, job_id=job_id):
                    twin = self._replay(session, caller, idempotency)
                    assert twin is not None  # the unique index let the twin through first
                    return twin, True
                return self._insert(session, submission, caller=caller, job_id=job_id), False
        except IntegrityError as error:
            if "uq_jobs_active_target" not in str(error.orig):
                raise
        assert submission.target_repo is not None  # the index holds targets only
        assert submission.target_branch is not None
        self.refuse_busy(caller, submission.target_repo, submission.target_branch)
        raise _busy(submission.target_repo, submission.target_branch, job=None)  # it has just ended

    def refuse_busy(self, caller: Caller, repo: str, branch: str) -> None:
        """Raises `SpearError(target_busy)` if a job is active for the target now; `submit` alone can be sure.

        The job is named to those who may see it.
        """
        found = self._holder(repo, branch)
        if found:
            job_id, owner = found
            raise _busy(repo, branch, job=job_id if owner == caller.owner or "admin" in caller.scopes else None)

    def get(self, caller: Caller, job_id: str, *, kind: Kind = Kind.MERGE) -> Job:
        """One job. Raises `SpearError(not_found)`, also for another caller's job."""
        with self._database.transaction() as session:
            return _visible(session, caller, job_id, kind)

    def glimpse(self, job_ids: Sequence[str]) -> dict[str, Glimpse]:
        """Those of the jobs that there are, whosever they are."""
        query = select(Job.id, Job.owner, Job.kind, Job.status, Job.version).where(Job.id.in_(job_ids))
        with self._database.transaction() as session:
            return {
                job_id: Glimpse(owner=owner, kind=kind, status=status, version=version)
                for job_id, owner, kind, status, version in session.execute(query)
            }

    def find(
        self, caller: Caller, *, limit: int, kind: Kind = Kind.MERGE, before: str | None = None,
        status: Sequence[Status] = (), target: str | None = None, labels: dict[str, str] | None = None,
    ) -> Sequence[Job]:
        """The newest jobs first; `before` is the last id of the page before."""
        query = _mine(select(Job), caller).where(Job.kind == kind).order_by(Job.id.desc()).limit(limit)
        if before:
            query = query.where(Job.id < before)
        if status:
            query = query.where(Job.status.in_(status))
        if target:
            query = query.where(func.lower(Job.target_repo) == target.lower())
        if labels:
            query = query.where(Job.labels.contains(labels))
        with self._database.transaction() as session:
            return session.scalars(query).all()

    def stages(self, job_ids: Sequence[str]) -> dict[str, list[Stage]]:
        """The stages of several jobs, all attempts, in order."""
        query = select(Stage).where(Stage.job_id.in_(job_ids)).order_by(Stage.number)
        found: dict[str, list[Stage]] = {job_id: [] for job_id in job_ids}
        with self._database.transaction() as session:
            for stage in session.scalars(query):
                found[stage.job_id].append(stage)
        return found

    def events(
        self, caller: Caller, job_id: str, *, after: int, limit: int, kind: Kind = Kind.MERGE
    ) -> Sequence[Event]:
        """Events with a number above `after`."""
        with self._database.transaction() as session:
            _visible(session, caller, job_id, kind)
            query = select(Event).where(Event.job_id == job_id, Event.seq > after).order_by(Event.seq).limit(limit)
            return session.scalars(query).all()

    def document(
        self, caller: Caller, job_id: str, name: str, *, kind: Kind = Kind.MERGE
    ) -> dict[str, Any] | None:
        """`scores`, `report` or `manifest`, where the job has come so far."""
        with self._database.transaction() as session:
            _visible(session, caller, job_id, kind)
            return get_document(session, job_id, name)

    def cancel(self, caller: Caller, job_id: str, *, kind: Kind = Kind.MERGE) -> Job:
        """Cancel, or ask the worker to; asking again changes nothing.

        Raises `SpearError(too_late)` once the job has ended otherwise or has begun to publish.
        """
        with self._database.transaction() as session:
            job = _visible(session, caller, job_id, kind)
            # from here on no worker claims it or hands it back: between the two questions it would be missed
            session.execute(select(Job.id).where(Job.id == job_id).with_for_update())
            waiting = change(
                session, job_id, where=(Job.status == Status.QUEUED, Job.publishing.is_(None)),
                events=[NewEvent(type="job.cancelled")], **ENDED, status=Status.CANCELLED,
            )
            working = waiting or change(
                session, job_id, where=(Job.status == Status.RUNNING, Job.publishing.is_(None)),
                events=[NewEvent(type="job.cancelling")], status=Status.CANCELLING,
            )
            session.refresh(job)
            if working is None and job.status not in (Status.CANCELLING, Status.CANCELLED):
                state = "is being published" if job.status in ACTIVE else f"has ended as {job.status}"
                raise SpearError(Code.TOO_LATE, f"job {job_id} {state}", job=job_id)
            return job

    def counts(self) -> dict[str, int]:
        """How many jobs there are in each active state."""
        query = select(Job.status, func.count()).where(Job.status.in_(ACTIVE)).group_by(Job.status)
        with self._database.transaction() as session:
            found = dict(session.execute(query).all())
        return {status.value: found.get(status, 0) for status in sorted(ACTIVE)}

    def oldest_queued_seconds(self) -> float:
        """How long the oldest queued job has waited; 0 where none waits."""
        query = select(func.extract("epoch", func.now() - func.min(Job.created_at))).where(Job.status == Status.QUEUED)
        with self._database.transaction() as session:
            return float(session.scalar(query) or 0)

    def _insert(self, session: Session, submission: Submission, *, caller: Caller, job_id: str) -> Job:
        count_in(
            session, caller.quota, owner=caller.owner, name=caller.name, planned_bytes=submission.planned_bytes
        )
        session.add(
            Job(
                id=job_id, kind=submission.kind, owner=caller.owner, key_id=caller.key_id,
                recipe=submission.recipe, resolved=submission.resolved, labels=submission.labels,
                target_repo=submission.target_repo, target_branch=submission.target_branch,
                max_attempts=self._max_attempts, retry_of=submission.retry_of, request_id=submission.request_id,
                traceparent=submission.traceparent,
                format=FORMAT, priority=submission.priority, max_runtime_seconds=submission.max_runtime_seconds,
                deadline=_after(submission.max_queue_seconds),
            )
        )
        session.flush()
        if caller.hub_token:
            caller.hub_token.keep(session, job_id)
        events = [NewEvent(type="job.queued", data=submission.resolved)]
        events += [NewEvent(type="job.warning", level="warning", data={"message": w}) for w in submission.warnings]
        job = change(session, job_id, events=events)
        assert job is not None
        return job

    def _reserve(self, session: Session, caller: Caller, idempotency: Idempotency, *, job_id: str) -> bool:
        """Whether this request is the first with its key; a concurrent twin waits here for the other's commit."""
        session.execute(
            delete(IdempotencyKey).where(
                IdempotencyKey.owner == caller.owner, IdempotencyKey.key == idempotency.key,
                IdempotencyKey.created_at < func.now() - self._window,
            )
        )
        statement = (
            insert(IdempotencyKey)
            .values(
                owner=caller.owner, key=idempotency.key, body_digest=idempotency.body_digest, job_id=job_id
            )
            .on_conflict_do_nothing()
            .returning(IdempotencyKey.job_id)
        )
        return session.scalars(statement).one_or_none() is not None

    def _replay(self, session: Session, caller: Caller, idempotency: Idempotency) -> Job | None:
        query = select(IdempotencyKey).where(
            IdempotencyKey.owner == caller.owner, IdempotencyKey.key == idempotency.key,
            IdempotencyKey.created_at >= func.now() - self._window,
        )
        row = session.scalars(query).one_or_none()
        if row is None:
            return None
        if row.body_digest != idempotency.body_digest:
            raise SpearError(
                Code.IDEMPOTENCY_KEY_REUSED, f"the Idempotency-Key {idempotency.key!r} was used with another body"
            )
        return session.get_one(Job, row.job_id)

    def _holder(self, repo: str, branch: str) -> tuple[str, str] | None:
        """The active job and its owner."""
        query = select(Job.id, Job.owner).where(
            func.lower(Job.target_repo) == repo.lower(), Job.target_branch == branch, Job.status.in_(ACTIVE)
        )
        with self._database.transaction() as session:
            row = session.execute(query).one_or_none()
        return (row.id, row.owner) if row else None


def _after(seconds: float | None) -> ColumnElement[Any] | None:
    """So long after now, by the database's clock."""
    return None if seconds is None else func.clock_timestamp() + timedelta(seconds=seconds)


def _busy(repo: str, branch: str, *, job: str | None) -> SpearError:
    return SpearError(
        Code.TARGET_BUSY, f"another job is active for {repo}@{branch}", pointer="/target/repo",
        repo=repo, branch=branch, job=job,
    )


def _mine(query: Select[Job], caller: Caller) -> Select[Job]:
    return query if "admin" in caller.scopes else query.where(Job.owner == caller.owner)


def _visible(session: Session, caller: Caller, job_id: str, kind: Kind) -> Job:
    job = session.scalars(_mine(select(Job).where(Job.id == job_id, Job.kind == kind), caller)).one_or_none()
    if job is None:
        raise SpearError(Code.NOT_FOUND, f"there is no job {job_id}", job=job_id)
    return job
