"""The table of workers: who is there, told by the workers themselves."""

from datetime import datetime

from sqlalchemy import func
from sqlalchemy.orm import Mapped, mapped_column

from app.jobs.tables import Base


class WorkerRow(Base):
    """One worker, by the name it was started with and its host. `owner` is what its jobs' leases bear."""

    __tablename__ = "workers"

    name: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    host: Mapped[str]
    pid: Mapped[int]
    version: Mapped[str]
    device: Mapped[str]
    started_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    seen_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    stopped_at: Mapped[datetime | None]
