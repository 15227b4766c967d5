"""Which workers there are, and what each does. Who holds a job is told by the job's lease, not by the worker."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import Row, and_, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from app.jobs.database import Database
from app.jobs.states import HELD
from app.jobs.tables import Job, Stage
from app.jobs.worker_tables import WorkerRow

NOW = func.clock_timestamp()
FORGOTTEN = timedelta(days=7)
"""a worker that was not heard of for so long is not listed any more"""


class State(StrEnum):
    """What a worker is at."""

    BUSY = "busy"
    IDLE = "idle"
    LOST = "lost"
    STOPPED = "stopped"


@dataclass(frozen=True, kw_only=True)
class Badge:
    """What a worker says of itself."""

    name: str
    owner: str
    host: str
    pid: int
    version: str
    device: str


@dataclass(frozen=True, kw_only=True)
class WorkerView:
    """A worker as it is seen, with the job whose lease it holds."""

    name: str
    host: str
    pid: int
    version: str
    device: str
    state: State
    started_at: datetime
    seen_at: datetime
    job_id: str | None
    kind: str | None
    stage: str | None
    since: datetime | None
    """when it began that stage"""


class Workers:
    """The table of workers."""

    def __init__(self, database: Database, *, lost_seconds: float) -> None:
        """A worker that was not seen for `lost_seconds` is lost."""
        self._database = database
        self._lost = timedelta(seconds=lost_seconds)

    def arrive(self, badge: Badge) -> None:
        """A worker begins; one of the same name made room for it."""
        row = vars(badge)
        fresh: dict[str, Any] = row | {"started_at": NOW, "seen_at": NOW, "stopped_at": None}
        with self._database.transaction() as session:
            session.execute(
                insert(WorkerRow).values(**row).on_conflict_do_update(index_elements=["name"], set_=fresh)
            )

    def beat(self, badge: Badge) -> bool:
        """It is still there; False if another process has taken its name, which then keeps it."""
        mine = WorkerRow.owner == badge.owner
        statement = (
            insert(WorkerRow).values(**vars(badge))
            .on_conflict_do_update(index_elements=["name"], set_={"seen_at": NOW}, where=mine)
            .returning(WorkerRow.name)
        )  # fmt: skip
        with self._database.transaction() as session:
            return session.scalars(statement).one_or_none() is not None

    def leave(self, name: str) -> None:
        """It was told to stop, and does."""
        with self._database.transaction() as session:
            session.execute(
                update(WorkerRow).where(WorkerRow.name == name).values(stopped_at=NOW, seen_at=NOW)
            )

    def forget(self) -> int:
        """Take away those that nobody has heard of for long; how many."""
        gone = delete(WorkerRow).where(WorkerRow.seen_at < NOW - FORGOTTEN).returning(WorkerRow.name)
        with self._database.transaction() as session:
            return len(session.scalars(gone).all())

    def find(self) -> Sequence[WorkerView]:
        """All workers, by name."""
        holds = and_(Job.lease_owner == WorkerRow.owner, Job.status.in_(HELD))
        works = and_(Stage.job_id == Job.id, Stage.ended_at.is_(None))
        query = (
            select(WorkerRow, Job.id, Job.kind, Job.stage, Stage.started_at.label("since"), NOW.label("now"))
            .outerjoin(Job, holds).outerjoin(Stage, works).order_by(WorkerRow.name, Job.id)
        )  # fmt: skip
        with self._database.transaction() as session:
            rows = session.execute(query).all()
        return list({row.WorkerRow.name: self._view(row) for row in rows}.values())

    def _view(self, found: Row[*tuple[Any, ...]]) -> WorkerView:
        row: WorkerRow = found.WorkerRow
        return WorkerView(
            name=row.name, host=row.host, pid=row.pid, version=row.version, device=row.device,
            state=self._state(row, busy=found.id is not None, now=found.now), started_at=row.started_at,
            seen_at=row.seen_at, job_id=found.id, kind=found.kind, stage=found.stage, since=found.since,
        )

    def _state(self, row: WorkerRow, *, busy: bool, now: datetime) -> State:
        if row.stopped_at is not None:
            return State.STOPPED
        if now - row.seen_at > self._lost:
            return State.LOST
        return State.BUSY if busy else State.IDLE
