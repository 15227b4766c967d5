"""The tables of access: what was done, what was used, and callers' tokens under seal."""

from datetime import date, datetime

from sqlalchemy import BigInteger, ForeignKey, Identity, Index, func
from sqlalchemy.orm import Mapped, mapped_column

from app.jobs.tables import Base


class AuditEntry(Base):
    """One call that was to change something, whatever became of it. A trigger makes the table append-only."""

    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp(), index=True)
    key_id: Mapped[str | None]
    owner: Mapped[str | None]
    action: Mapped[str]
    object: Mapped[str]
    status: Mapped[int]
    code: Mapped[str | None]
    request_id: Mapped[str | None]
    address: Mapped[str | None]

    __table_args__ = (Index("ix_audit_owner", "owner", "id"), Index("ix_audit_key_id", "key_id", "id"))


class Usage(Base):
    """Bytes that the jobs of an owner's keys of one name were to read, by the UTC day of their submission."""

    __tablename__ = "usage"

    owner: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    bytes: Mapped[int] = mapped_column(BigInteger)


class SealedToken(Base):
    """A caller's own Hub token, encrypted for one job; a trigger removes it when the job ends."""

    __tablename__ = "sealed_tokens"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    sealed: Mapped[bytes]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
