"""The outbox of webhooks: written with the change that it tells of, emptied by whoever sends.

Any number of processes may send: each takes one due delivery at a time, and a taken one is hidden from the others until
its hold runs out, so that a sender that dies delays a word and never loses it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.orm import Session

from app.errors import Code, SpearError
from app.jobs.database import Database
from app.jobs.ids import new_id
from app.jobs.tables import Job
from app.jobs.webhook_tables import Delivery, DeliveryAttempt

NOW = func.clock_timestamp()
HOLD = timedelta(seconds=60)
"""longer than any attempt takes"""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How an attempt went: a status of the receiver, or the reason why there is none."""

    milliseconds: int
    status_code: int | None = None
    error: str | None = None

    @property
    def accepted(self) -> bool:
        return self.status_code is not None and 200 <= self.status_code < 300

    @property
    def final(self) -> bool:
        """The receiver is gone for good (410), or may not be asked."""
        return self.status_code == 410 or (self.error or "").startswith("refused")


def note(session: Session, job: Job, types: Sequence[str]) -> None:
    """Write what the job's webhook is to be told of the events; in the transaction in which they happen."""
    wanted = job.recipe.get("webhook") or {}
    for kind in types:
        if kind in wanted.get("events", ()):
            session.execute(insert(Delivery).values(_delivery(session, job, kind, url=wanted["url"])))


def _delivery(session: Session, job: Job, kind: str, *, url: str) -> dict[str, Any]:
    last = session.scalar(select(func.max(Delivery.number)).where(Delivery.job_id == job.id))
    folder = "scores" if job.id.startswith("scr_") else "merges"
    links = {"self": f"/{folder}/{job.id}", "report": f"/{folder}/{job.id}/report"}
    payload = {
        "type": kind, "timestamp": datetime.now(UTC).isoformat(),
        "data": {"id": job.id, "status": kind.removeprefix("job."), "links": links},
    }
    return {
        "id": new_id("msg"), "job_id": job.id, "number": (last or 0) + 1, "owner": job.owner, "url": url,
        "payload": payload,
    }


class Deliveries:
    """The sender's side of the outbox, and what callers see of it."""

    def __init__(self, database: Database, *, ladder: Sequence[float]) -> None:
        """`ladder` has the seconds to wait after the first, second, ... failed try; after the last it is given up."""
        self._database = database
        self._ladder = tuple(ladder)

    def take(self) -> Delivery | None:
        """A due delivery, hidden from the other senders for `HOLD`; None if there is none.

        Owners are served by lot, each one's oldest first: a receiver that lets every word time out delays its own
        owner's words only.
        """
        waiting = (Delivery.status == "pending", Delivery.due_at <= NOW)
        whose = (
            select(Delivery.owner).where(*waiting).group_by(Delivery.owner).order_by(func.random()).limit(1)
            .scalar_subquery()
        )
        due = (
            select(Delivery.id).where(*waiting, Delivery.owner == whose)
            .order_by(Delivery.due_at).limit(1).with_for_update(skip_locked=True).scalar_subquery()
        )
        statement = (
            update(Delivery).where(Delivery.id == due)
            .values(due_at=NOW + HOLD, tries=Delivery.tries + 1).returning(Delivery)
        )
        with self._database.transaction() as session:
            return session.scalars(statement).one_or_none()

    def record(self, delivery: Delivery, outcome: Outcome, *, jitter: float = 1.0) -> None:
        """Log the attempt, and settle the delivery or set its next try (`jitter` times the ladder's step)."""
        over = outcome.final or delivery.tries > len(self._ladder)
        values: dict[str, Any]
        if outcome.accepted:
            values = {"status": "delivered", "ended_at": NOW}
        elif over:
            values = {"status": "failed", "ended_at": NOW}
        else:
            values = {"due_at": NOW + timedelta(seconds=jitter * self._ladder[delivery.tries - 1])}
        own = (Delivery.id == delivery.id, Delivery.status == "pending", Delivery.tries == delivery.tries)
        with self._database.transaction() as session:
            session.execute(insert(DeliveryAttempt).values(
                delivery_id=delivery.id, milliseconds=outcome.milliseconds, status_code=outcome.status_code,
                error=outcome.error,
            ))
            session.execute(update(Delivery).where(*own).values(values))

    def of(self, job_id: str) -> list[tuple[Delivery, list[DeliveryAttempt]]]:
        """A job's deliveries in order, each with its attempts."""
        with self._database.transaction() as session:
            found = session.scalars(select(Delivery).where(Delivery.job_id == job_id).order_by(Delivery.number)).all()
            query = (
                select(DeliveryAttempt).where(DeliveryAttempt.delivery_id.in_([one.id for one in found]))
                .order_by(DeliveryAttempt.number)
            )
            attempts = session.scalars(query).all()
        return [(one, [a for a in attempts if a.delivery_id == one.id]) for one in found]

    def again(self, job_id: str, number: int) -> None:
        """Send a delivery again, now, with the whole ladder before it. Raises `SpearError(not_found)`."""
        statement = (
            update(Delivery).where(Delivery.job_id == job_id, Delivery.number == number)
            .values(status="pending", ended_at=None, tries=0, due_at=NOW).returning(Delivery.id)
        )
        with self._database.transaction() as session:
            if session.scalars(statement).one_or_none() is None:
                raise SpearError(Code.NOT_FOUND, f"job {job_id} has no delivery {number}", job=job_id)
