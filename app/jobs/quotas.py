"""What a key may have at work at once and read in a day, counted in the transaction that makes the job.

Keys of one owner and name count together, so that rotating a key gives nobody a second helping.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Date, cast, func, literal, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.errors import Code, SpearError
from app.jobs.access_tables import Usage
from app.jobs.states import ACTIVE
from app.jobs.tables import ApiKey, Job

_BUSY_SECONDS = 30
TODAY: ColumnElement[Any] = cast(func.timezone("UTC", func.now()), Date)


@dataclass(frozen=True, kw_only=True)
class Quota:
    """Limits on jobs that have not ended and on planned input bytes in a UTC day; None is no limit."""

    max_active: int | None = None
    bytes_per_day: int | None = None


NO_QUOTA = Quota()


def count_in(session: Session, quota: Quota, *, owner: str, name: str, planned_bytes: int) -> None:
    """Count a new job of these keys, before its row is written; what is refused leaves no trace.

    Raises `SpearError(quota_exceeded)` with `retry_after` in seconds.
    """
    if quota.max_active is not None:
        _refuse_many(session, quota.max_active, owner=owner, name=name)
    _count_bytes(session, quota.bytes_per_day, owner=owner, name=name, planned_bytes=planned_bytes)


def _refuse_many(session: Session, limit: int, *, owner: str, name: str) -> None:
    # submissions of the same keys take turns from here to their commit, so that none counts what another adds
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"quota/{owner}/{name}", 0))))
    keys = select(ApiKey.id).where(ApiKey.owner == owner, ApiKey.name == name)
    count = session.scalar(
        select(func.count()).where(Job.owner == owner, Job.key_id.in_(keys), Job.status.in_(ACTIVE))
    )
    if (count or 0) >= limit:
        raise SpearError(
            Code.QUOTA_EXCEEDED, f"{count} jobs of this key have not ended; {limit} are allowed at once",
            quota="max_active", limit=limit, retry_after=_BUSY_SECONDS,
        )  # fmt: skip


def _count_bytes(session: Session, limit: int | None, *, owner: str, name: str, planned_bytes: int) -> None:
    """One statement, so that of two at once the second sees what the first has used."""
    new = insert(Usage).from_select(
        ["owner", "name", "day", "bytes"],
        select(literal(owner), literal(name), TODAY, literal(planned_bytes, BigInteger)).where(
            literal(limit is None or planned_bytes <= limit)
        ),
    )
    total = Usage.bytes + new.excluded.bytes
    statement = new.on_conflict_do_update(
        index_elements=["owner", "name", "day"], set_={"bytes": total},
        where=None if limit is None else total <= limit,
    ).returning(Usage.bytes)
    if session.scalar(statement) is None:
        raise SpearError(
            Code.QUOTA_EXCEEDED, f"{planned_bytes} bytes more are above the {limit} that this key may read in a day",
            quota="bytes_per_day", limit=limit, planned_bytes=planned_bytes, retry_after=_until_midnight(session),
        )  # fmt: skip


def _until_midnight(session: Session) -> int:
    """Seconds until the next UTC day, by the database's clock."""
    tomorrow = text("SELECT ceil(86400 - extract(epoch FROM timezone('UTC', now())::time))")
    return int(session.scalar(tomorrow) or 1)
