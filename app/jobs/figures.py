"""The service's figures, as its rows tell them: every process that asks is told the same.

What has happened (ends, stages, words of events) is counted once: rows up to a moment that no open transaction can
write before are kept as sums, and only what came after that is read again.
"""

import threading
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Double, Index, Select, and_, bindparam, case, cast, func, literal, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from app.jobs.database import Database
from app.jobs.states import ACTIVE, Status
from app.jobs.tables import Event, Job, Stage
from app.jobs.webhook_tables import Delivery

EDGES = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 14_400, 43_200)
"""seconds: from a tiny test to half a day"""
SETTLED = timedelta(seconds=90)
"""longer than a transaction may take: what is older than this does not change any more"""
TOLD = ("job.requeued", "job.failed", "job.succeeded", "publish.started", "publish.absent", "publish.late")
"""events that are counted"""

Index("ix_jobs_ended_at", Job.ended_at, postgresql_where=Job.ended_at.is_not(None))
Index("ix_stages_ended_at", Stage.ended_at)
Index("ix_events_counted", Event.at, postgresql_where=Event.type.in_(sorted(TOLD)))


@dataclass
class Spread:
    """How long something took: observations by the bucket of `EDGES` that they fall in, and their sum."""

    buckets: Counter[int] = field(default_factory=Counter)
    seconds: float = 0.0

    def add(self, bucket: int, count: int, seconds: float) -> None:
        self.buckets[bucket] += count
        self.seconds += seconds

    def cumulative(self) -> list[tuple[str, float]]:
        """Prometheus' form: how many took at most so long."""
        reached, found = 0, []
        for number in range(len(EDGES) + 1):
            reached += self.buckets[number]
            found.append((f"{EDGES[number]:g}" if number < len(EDGES) else "+Inf", float(reached)))
        return found


@dataclass
class Totals:
    """What has happened so far."""

    ended: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """by kind, status and the error's code"""
    events: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """by type, stage and the error's code; a success that published has the code `published`"""
    stages: dict[tuple[str, str], Spread] = field(default_factory=lambda: defaultdict(Spread))
    """by kind and name"""

    def read(self, session: Session, *, after: datetime | None, until: datetime) -> None:
        """Add what happened in between."""
        for *key, count in session.execute(_ends(after, until)):
            self.ended[key[0], key[1], key[2]] += count
        for *key, count in session.execute(_words(after, until)):
            self.events[key[0], key[1], key[2]] += count
        for kind, name, bucket, count, seconds in session.execute(_stages(after, until)):
            self.stages[kind, name].add(bucket, count, float(seconds))

    def copy(self) -> "Totals":
        stages = defaultdict(Spread, {
            key: Spread(Counter(spread.buckets), spread.seconds) for key, spread in self.stages.items()
        })  # fmt: skip
        return Totals(Counter(self.ended), Counter(self.events), stages)


@dataclass(frozen=True, kw_only=True)
class Now:
    """How things stand."""

    active: dict[tuple[str, str], int]
    """jobs by kind and status"""
    oldest_queued: dict[str, float]
    """seconds, by kind"""
    overdue: int
    """jobs whose lease has run out, and that nobody has rescued yet"""
    waiting_webhooks: int


class Figures:
    """Reads the figures; one per process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._settled = Totals()
        self._until: datetime | None = None

    def now(self) -> Now:
        """How things stand."""
        with self._database.transaction() as session:
            rows = session.execute(_active()).all()
            overdue = session.scalar(_overdue()) or 0
            waiting = select(func.count()).where(Delivery.status == "pending")
            return Now(
                active={(kind, status): count for kind, status, count, _ in rows},
                oldest_queued={kind: float(age) for kind, status, _, age in rows if status == Status.QUEUED},
                overdue=overdue, waiting_webhooks=session.scalar(waiting) or 0,
            )

    def totals(self) -> Totals:
        """What has happened since the first row."""
        with self._lock, self._database.transaction() as session:
            now = session.scalar(select(func.clock_timestamp()))
            assert now is not None
            settled = now - SETTLED
            if self._until is None or self._until < settled:
                self._settled.read(session, after=self._until, until=settled)
                self._until = settled
            whole = self._settled.copy()
            whole.read(session, after=self._until, until=now + SETTLED)
            return whole


def _active() -> Select[*tuple[Any, ...]]:
    age = func.extract("epoch", func.now() - func.min(Job.created_at))
    return (
        select(Job.kind, Job.status, func.count(), age).where(Job.status.in_(ACTIVE)).group_by(Job.kind, Job.status)
    )


def _overdue() -> Select[int]:
    held = Job.status.in_(ACTIVE - {Status.QUEUED})
    return select(func.count()).where(held, Job.lease_until < func.now())


def _ends(after: datetime | None, until: datetime) -> Select[*tuple[Any, ...]]:
    code = func.coalesce(Job.error["code"].astext, "")
    key: Sequence[Any] = (Job.kind, Job.status, code)
    return select(*key, func.count()).where(_between(Job.ended_at, after, until)).group_by(*key)


def _words(after: datetime | None, until: datetime) -> Select[*tuple[Any, ...]]:
    published = and_(Event.type == "job.succeeded", Event.data["commit"].astext.is_not(None))
    code = case((published, "published"), else_=func.coalesce(Event.data["code"].astext, ""))
    # in the statement's text: a parameter could not be proved to lie within the index's condition
    told: Any = bindparam("told", TOLD, expanding=True, literal_execute=True)
    stage = func.coalesce(Event.stage, Event.data["stage"].astext, "")
    words = select(Event.type, stage.label("stage"), code.label("code")).where(
        Event.type.in_(told), _between(Event.at, after, until)
    ).subquery()
    return select(words.c.type, words.c.stage, words.c.code, func.count()).group_by(*words.c)


def _stages(after: datetime | None, until: datetime) -> Select[*tuple[Any, ...]]:
    seconds = cast(func.extract("epoch", Stage.ended_at - Stage.started_at), Double)
    edges = cast(literal([float(edge) for edge in EDGES], ARRAY(Double)), ARRAY(Double))
    spans = (
        select(Job.kind, Stage.name, func.width_bucket(seconds, edges).label("bucket"), seconds.label("seconds"))
        .join(Job, Job.id == Stage.job_id).where(_between(Stage.ended_at, after, until)).subquery()
    )  # fmt: skip
    key = (spans.c.kind, spans.c.name, spans.c.bucket)
    return select(*key, func.count(), func.sum(spans.c.seconds)).group_by(*key)


def _between(column: Any, after: datetime | None, until: datetime) -> ColumnElement[bool]:
    return and_(column <= until, *(() if after is None else (column > after,)))
