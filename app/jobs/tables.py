"""The tables. Rules that must hold whatever the code does are constraints and indexes here, and a trigger."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    String,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.jobs.states import ACTIVE, HELD, TERMINAL, Kind, Status

_NAMING = {
    "ix": "ix_%(column_0_label)s", "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s", "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}


def _one_of(values: Any) -> str:
    return ", ".join(f"'{value}'" for value in sorted(values))


_QUEUED = "status = 'queued'"


class Base(DeclarativeBase):
    """Common types: timestamps are aware, dictionaries are jsonb."""

    type_annotation_map = {  # noqa: RUF012  (SQLAlchemy's own hook)
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB(none_as_null=True),
        dict[str, str]: JSONB(none_as_null=True),
        list[str]: ARRAY(String),
    }


Base.metadata.naming_convention = _NAMING


class ApiKey(Base):
    """A caller's key: only its HMAC is kept. Jobs belong to the key's owner, so keys can be rotated.

    Limits that are null are those of the settings; an unlimited key has none. Keys of one owner and name share the
    limits on jobs and bytes: rotating a key gives nobody a second helping.
    """

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    name: Mapped[str]
    prefix: Mapped[str] = mapped_column(unique=True)
    digest: Mapped[bytes]
    scopes: Mapped[list[str]]
    reads: Mapped[list[str]]
    writes: Mapped[list[str]]
    unlimited: Mapped[bool] = mapped_column(server_default=text("false"))
    credential: Mapped[str | None]
    requests_per_minute: Mapped[int | None]
    max_active: Mapped[int | None]
    max_running: Mapped[int | None]
    bytes_per_day: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint(
            "requests_per_minute > 0 AND max_active >= 0 AND max_running >= 0 AND bytes_per_day >= 0", name="limits"
        ),
        Index("ix_api_keys_owner", "owner", "name"),
    )


class Job(Base):
    """One merge. The row is the truth; a message carries its id only.

    `deadline` is when the job must have started, and from its first start on, when it must have ended.
    """

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(server_default=Kind.MERGE)
    owner: Mapped[str]
    key_id: Mapped[str] = mapped_column(ForeignKey("api_keys.id"))
    status: Mapped[str] = mapped_column(server_default=Status.QUEUED)
    stage: Mapped[str | None]
    progress: Mapped[dict[str, Any] | None]
    recipe: Mapped[dict[str, Any]]
    resolved: Mapped[dict[str, Any]]
    labels: Mapped[dict[str, str]]
    target_repo: Mapped[str | None]
    target_branch: Mapped[str | None]
    result: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None]
    retry_of: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"))
    request_id: Mapped[str | None]
    traceparent: Mapped[str | None]

    attempt: Mapped[int] = mapped_column(Integer, server_default="0")
    max_attempts: Mapped[int]
    format: Mapped[int] = mapped_column(Integer, server_default="1")
    priority: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    max_runtime_seconds: Mapped[float | None]
    deadline: Mapped[datetime | None]
    lease_token: Mapped[int] = mapped_column(BigInteger, server_default="0")
    lease_owner: Mapped[str | None]
    lease_until: Mapped[datetime | None]
    announced_at: Mapped[datetime] = mapped_column(server_default=func.now())
    not_before: Mapped[datetime | None]
    publishing: Mapped[dict[str, Any] | None]
    publish_deadline: Mapped[datetime | None]

    version: Mapped[int] = mapped_column(BigInteger, server_default="1")
    event_seq: Mapped[int] = mapped_column(BigInteger, server_default="0")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    ended_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint(f"status IN ({_one_of(Status)})", name="status"),
        CheckConstraint(f"kind IN ({_one_of(Kind)})", name="kind"),
        CheckConstraint(f"(status IN ({_one_of(TERMINAL)})) = (ended_at IS NOT NULL)", name="ended"),
        CheckConstraint(
            f"(status IN ({_one_of(HELD)})) = (lease_owner IS NOT NULL AND lease_until IS NOT NULL)", name="leased"
        ),
        CheckConstraint("status <> 'succeeded' OR result IS NOT NULL", name="succeeded_has_result"),
        CheckConstraint("status <> 'failed' OR error IS NOT NULL", name="failed_has_error"),
        CheckConstraint("(publishing IS NULL) = (publish_deadline IS NULL)", name="publishing_has_deadline"),
        CheckConstraint("(target_repo IS NULL) = (target_branch IS NULL)", name="target_whole"),
        CheckConstraint("priority BETWEEN -10 AND 10", name="priority"),
        CheckConstraint("attempt >= 0 AND lease_token >= 0 AND event_seq >= 0", name="counters"),
        Index(
            "uq_jobs_active_target", text("lower(target_repo)"), "target_branch", unique=True,
            postgresql_where=text(f"status IN ({_one_of(ACTIVE)})"),
        ),
        Index("ix_jobs_active", "status", "created_at", postgresql_where=text(f"status IN ({_one_of(ACTIVE)})")),
        Index("ix_jobs_next", "key_id", text("priority DESC"), "created_at", postgresql_where=text(_QUEUED)),
        Index("ix_jobs_unheard", "announced_at", postgresql_where=text(_QUEUED)),
        Index("ix_jobs_deadline", "deadline", postgresql_where=text(f"{_QUEUED} AND deadline IS NOT NULL")),
        Index("ix_jobs_kind_id", "kind", "id"),
        Index("ix_jobs_owner_kind_id", "owner", "kind", "id"),
        Index("ix_jobs_owner_status_id", "owner", "kind", "status", "id"),
        Index("ix_jobs_target", text("lower(target_repo)"), "id"),
        Index("ix_jobs_active_key", "key_id", postgresql_where=text(f"status IN ({_one_of(ACTIVE)})")),
        Index("ix_jobs_labels", "labels", postgresql_using="gin"),
    )


class Turn(Base):
    """When an owner was last served: whoever waits longest is next."""

    __tablename__ = "turns"

    owner: Mapped[str] = mapped_column(primary_key=True)
    served_at: Mapped[datetime]


class Stage(Base):
    """One stage of one attempt."""

    __tablename__ = "stages"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    number: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    attempt: Mapped[int]
    name: Mapped[str]
    started_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    ended_at: Mapped[datetime | None]

    __table_args__ = (
        Index("ix_stages_job_id", "job_id", "number"),
        Index("uq_stages_open", "job_id", unique=True, postgresql_where=text("ended_at IS NULL")),
    )


class Event(Base):
    """What happened to a job: append-only, numbered without gaps."""

    __tablename__ = "events"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    type: Mapped[str]
    level: Mapped[str] = mapped_column(server_default="info")
    stage: Mapped[str | None]
    data: Mapped[dict[str, Any]]
    request_id: Mapped[str | None]
    trace_id: Mapped[str | None]

    __table_args__ = (CheckConstraint("level IN ('info', 'warning', 'error')", name="level"),)


class Document(Base):
    """What a job leaves behind: `scores`, `report`, `manifest`."""

    __tablename__ = "documents"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    body: Mapped[dict[str, Any]]


class IdempotencyKey(Base):
    """Which job an `Idempotency-Key` made, and from which body."""

    __tablename__ = "idempotency_keys"

    owner: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    body_digest: Mapped[bytes]
    job_id: Mapped[str] = mapped_column(
        ForeignKey("jobs.id", ondelete="CASCADE", deferrable=True, initially="DEFERRED")  # reserved before the job
    )
    created_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)


class Spectrum(Base):
    """A cached singular spectrum: little-endian float64, packed by `worker.spectra`."""

    __tablename__ = "spectra"

    digest: Mapped[str] = mapped_column(primary_key=True)
    tensor: Mapped[str] = mapped_column(primary_key=True)
    algorithm: Mapped[str] = mapped_column(primary_key=True)
    precision: Mapped[str] = mapped_column(primary_key=True)
    device_class: Mapped[str] = mapped_column(primary_key=True)
    count: Mapped[int]
    data: Mapped[bytes] = mapped_column(LargeBinary)
    used_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)


class AnswerSheet(Base):
    """What one model answered to one task, item by item: compressed JSON."""

    __tablename__ = "answer_sheets"

    model: Mapped[str] = mapped_column(primary_key=True)
    task: Mapped[str] = mapped_column(primary_key=True)
    settings: Mapped[str] = mapped_column(primary_key=True)
    data: Mapped[bytes] = mapped_column(LargeBinary)
    used_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)
