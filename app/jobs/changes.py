"""The one way in which a job's row changes: with its version, and with its events numbered without gaps."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, func, insert, update
from sqlalchemy.orm import Session
from structlog.contextvars import get_contextvars

from app.jobs.tables import Event, Job
from app.jobs.webhooks import note


@dataclass(frozen=True, kw_only=True)
class NewEvent:
    """What happened, in the past tense: `job.succeeded`, `stage.started`, `tensor.scored`."""

    type: str
    level: str = "info"
    stage: str | None = None
    data: dict[str, Any] = field(default_factory=dict)


def change(
    session: Session, job_id: str, *, where: Sequence[ColumnElement[bool]] = (), events: Sequence[NewEvent] = (),
    **values: Any,
) -> Job | None:
    """Update the row if it meets `where`, and append the events; None if it does not."""
    statement = (
        update(Job)
        .where(Job.id == job_id, *where)
        .values(
            version=Job.version + 1, event_seq=Job.event_seq + len(events), updated_at=func.clock_timestamp(), **values
        )
        .returning(Job)
        .execution_options(populate_existing=True)
    )
    job = session.scalars(statement).one_or_none()
    if job is not None and events:
        append(session, job, events)
    return job


def append(session: Session, job: Job, events: Sequence[NewEvent]) -> None:
    """Write events whose numbers end at the job's `event_seq`, which has already grown for them.

    Each bears the request and the trace that it happened in; and the job's webhook is to be told of it, where wanted.
    """
    first = job.event_seq - len(events) + 1
    context = get_contextvars()
    origin = {
        "request_id": context.get("request_id") or job.request_id,
        "trace_id": context.get("trace_id") or (job.traceparent.split("-")[1] if job.traceparent else None),
    }
    session.execute(
        insert(Event),
        [
            {"job_id": job.id, "seq": first + i, "type": e.type, "level": e.level, "stage": e.stage, "data": e.data}
            | origin
            for i, e in enumerate(events)
        ],
    )
    note(session, job, [event.type for event in events])
