"""Who called for a change, and what became of it. The table is append-only; only its retention takes rows away."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, func, insert, select, text

from app.jobs.access_tables import AuditEntry, SealedToken, Usage
from app.jobs.database import Database
from app.jobs.quotas import TODAY
from app.jobs.states import TERMINAL
from app.jobs.tables import Job
from app.logs import redact

_MAX_OBJECT = 300
_USAGE_DAYS = 30


@dataclass(frozen=True, kw_only=True)
class Deed:
    """One call: `action` is the route, `object` what it was about, `code` the problem's code where there was one."""

    action: str
    object: str
    status: int
    code: str | None = None
    key_id: str | None = None
    owner: str | None = None
    request_id: str | None = None
    address: str | None = None


class Audit:
    """The audit in the database."""

    def __init__(self, database: Database, *, days: float) -> None:
        self._database = database
        self._days = days

    def write(self, deed: Deed) -> None:
        """Append one row, with what looks like a token taken out of it."""
        row = asdict(deed) | {"object": redact(deed.object)[:_MAX_OBJECT]}
        with self._database.transaction() as session:
            session.execute(insert(AuditEntry), [row])

    def find(
        self, *, limit: int, before: int | None = None, key_id: str | None = None, owner: str | None = None,
        since: datetime | None = None,
    ) -> Sequence[AuditEntry]:
        """The newest rows first; `before` is the last id of the page before."""
        query = select(AuditEntry).order_by(AuditEntry.id.desc()).limit(limit)
        if before is not None:
            query = query.where(AuditEntry.id < before)
        if since is not None:
            query = query.where(AuditEntry.at >= since)
        if key_id is not None:
            query = query.where(AuditEntry.key_id == key_id)
        if owner is not None:
            query = query.where(AuditEntry.owner == owner)
        with self._database.transaction() as session:
            return session.scalars(query).all()

    def trim(self) -> int:
        """Take away what is older than the retention (0 days: nothing ever is); how many rows.

        Sealed tokens of ended jobs, which a trigger has taken away already, and old usage go too.
        """
        with self._database.transaction() as session:
            ended = select(Job.id).where(Job.status.in_(TERMINAL))
            session.execute(delete(SealedToken).where(SealedToken.job_id.in_(ended)))
            session.execute(delete(Usage).where(Usage.day < TODAY - _USAGE_DAYS))
            if not self._days:
                return 0
            oldest = session.scalar(select(func.now() - timedelta(days=self._days)))
            session.execute(text("SELECT set_config('spear.audit_before', :at, true)"), {"at": str(oldest)})
            gone = delete(AuditEntry).where(AuditEntry.at < oldest).returning(AuditEntry.id)
            return len(session.scalars(gone).all())
