"""The tables of webhooks: what is to be delivered, and every attempt at it."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Identity, Index, Integer, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.jobs.tables import Base


class Delivery(Base):
    """One word to one receiver, written in the transaction that ended the job; its id is the `webhook-id`."""

    __tablename__ = "deliveries"

    id: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    number: Mapped[int]
    owner: Mapped[str]
    url: Mapped[str]
    payload: Mapped[dict[str, Any]]
    status: Mapped[str] = mapped_column(server_default="pending")
    tries: Mapped[int] = mapped_column(Integer, server_default="0")
    due_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    ended_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("status IN ('delivered', 'failed', 'pending')", name="status"),
        CheckConstraint("(status = 'pending') = (ended_at IS NULL)", name="ended"),
        Index("uq_deliveries_job_id_number", "job_id", "number", unique=True),
        Index("ix_deliveries_due", "due_at", postgresql_where=text("status = 'pending'")),
    )


class DeliveryAttempt(Base):
    """One attempt: the receiver's status, or why there was none. What the receiver wrote is not kept."""

    __tablename__ = "delivery_attempts"

    number: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    delivery_id: Mapped[str] = mapped_column(ForeignKey("deliveries.id", ondelete="CASCADE"), index=True)
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    milliseconds: Mapped[int]
    status_code: Mapped[int | None]
    error: Mapped[str | None]
