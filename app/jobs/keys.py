"""API keys: made, found by what the caller sends, revoked. Only an HMAC of a key is stored."""

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import func, select, update

from app.errors import Code, SpearError
from app.jobs.database import Database
from app.jobs.ids import new_id
from app.jobs.tables import ApiKey

SCOPES = ("merges:read", "merges:write", "admin")
_USE_STEP = timedelta(minutes=1)


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who asks, and what they may."""

    key_id: str
    owner: str
    scopes: frozenset[str]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    unlimited: bool

    def require(self, scope: str) -> None:
        """Raises `SpearError(scope_missing)`; `admin` holds every scope."""
        if scope not in self.scopes and "admin" not in self.scopes:
            raise SpearError(Code.SCOPE_MISSING, f"this needs the scope {scope}", scope=scope)


class Keys:
    """The keys in the database, hashed with the service's secret."""

    def __init__(self, database: Database, *, secret: bytes) -> None:
        self._database = database
        self._secret = secret

    def create(
        self, *, name: str, owner: str | None = None, scopes: Sequence[str], reads: Sequence[str] = (),
        writes: Sequence[str] = (), unlimited: bool = False, expires_at: datetime | None = None,
    ) -> str:
        """A new key; the returned text is shown this once. Grants are namespaces (`org`) or repos (`org/name`)."""
        unknown = sorted(set(scopes) - set(SCOPES))
        if unknown:
            raise SpearError(Code.INVALID_REQUEST, f"unknown scope {unknown[0]}; known are {', '.join(SCOPES)}")
        prefix = secrets.token_hex(4)
        token = f"spear_{prefix}_{secrets.token_urlsafe(32)}"
        row = ApiKey(
            id=new_id("key"), owner=owner or name, name=name, prefix=prefix, digest=self._digest(token),
            scopes=list(scopes), reads=list(reads), writes=list(writes), unlimited=unlimited, expires_at=expires_at,
        )
        with self._database.transaction() as session:
            session.add(row)
        return token

    def find(self, token: str) -> Caller | None:
        """The caller behind a key that is valid now."""
        parts = token.split("_", 2)
        if len(parts) != 3 or parts[0] != "spear":
            return None
        now = datetime.now(UTC)
        with self._database.transaction() as session:
            row = session.scalars(select(ApiKey).where(ApiKey.prefix == parts[1])).one_or_none()
            if row is None or not hmac.compare_digest(row.digest, self._digest(token)) or not _valid(row, now=now):
                return None
            if row.last_used_at is None or now - row.last_used_at > _USE_STEP:
                session.execute(update(ApiKey).where(ApiKey.id == row.id).values(last_used_at=func.now()))
        return _caller(row)

    def grants(self, key_id: str) -> Caller | None:
        """What the owner of a key may do now, for the worker's second look; None if nothing any more.

        A key that merely ran out since it submitted a job still counts for that job; one that was revoked does not,
        but the owner's other keys do, so that rotating keys does not fail the jobs that wait.
        """
        with self._database.transaction() as session:
            own = session.get(ApiKey, key_id)
            rows = session.scalars(select(ApiKey).where(ApiKey.owner == own.owner)).all() if own else ()
        now = datetime.now(UTC)
        counting = [row for row in rows if _valid(row, now=now) or (row.id == key_id and row.revoked_at is None)]
        if not counting:
            return None
        return Caller(
            key_id=key_id, owner=counting[0].owner, scopes=frozenset(s for row in counting for s in row.scopes),
            reads=tuple(dict.fromkeys(grant for row in counting for grant in row.reads)),
            writes=tuple(dict.fromkeys(grant for row in counting for grant in row.writes)), unlimited=False,
        )

    def revoke(self, *, name: str) -> int:
        """Revoke all keys of a name; how many there were."""
        statement = (
            update(ApiKey)
            .where(ApiKey.name == name, ApiKey.revoked_at.is_(None))
            .values(revoked_at=func.now())
            .returning(ApiKey.id)
        )
        with self._database.transaction() as session:
            return len(session.scalars(statement).all())

    def _digest(self, token: str) -> bytes:
        return hmac.digest(self._secret, token.encode(), hashlib.sha256)


def _valid(row: ApiKey, *, now: datetime) -> bool:
    return row.revoked_at is None and (row.expires_at is None or row.expires_at > now)


def _caller(row: ApiKey) -> Caller:
    return Caller(
        key_id=row.id, owner=row.owner, scopes=frozenset(row.scopes), reads=tuple(row.reads), writes=tuple(row.writes),
        unlimited=row.unlimited,
    )
