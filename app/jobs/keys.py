"""API keys: made, found by what the caller sends, listed, rotated, revoked. Only an HMAC of a key is stored."""

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session

from app.errors import Code, SpearError
from app.jobs.callers import Caller
from app.jobs.database import Database
from app.jobs.ids import new_id
from app.jobs.quotas import NO_QUOTA, Quota
from app.jobs.tables import ApiKey

__all__ = ["SCOPES", "Allowance", "Caller", "Keys"]

SCOPES = ("merges:read", "merges:write", "admin")
COPIED = (
    "owner", "name", "scopes", "reads", "writes", "unlimited", "credential", "requests_per_minute", "max_active",
    "max_running", "bytes_per_day",
)  # fmt: skip
"""what a key that is rotated hands on"""
_USE_STEP = timedelta(minutes=1)


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """A key's own limits: None is that of the settings, 0 is none. `credential` names whom it acts as on the Hub."""

    credential: str | None = None
    requests_per_minute: int | None = None
    max_active: int | None = None
    max_running: int | None = None
    bytes_per_day: int | None = None


AS_SET = Allowance()


class Keys:
    """The keys in the database, hashed with the service's secret; `defaults` for keys without limits of their own."""

    def __init__(self, database: Database, *, secret: bytes, defaults: Quota = NO_QUOTA) -> None:
        self._database = database
        self._secret = secret
        self._defaults = defaults

    def create(
        self, *, name: str, owner: str | None = None, scopes: Sequence[str], reads: Sequence[str] = (),
        writes: Sequence[str] = (), unlimited: bool = False, expires_at: datetime | None = None,
        allowance: Allowance = AS_SET,
    ) -> str:
        """A new key; the returned text is shown this once. Grants are namespaces (`org`) or repos (`org/name`)."""
        return self.add(
            name=name, owner=owner, scopes=scopes, reads=reads, writes=writes, unlimited=unlimited,
            expires_at=expires_at, allowance=allowance,
        )[1]

    def add(
        self, *, name: str, owner: str | None = None, scopes: Sequence[str], reads: Sequence[str] = (),
        writes: Sequence[str] = (), unlimited: bool = False, expires_at: datetime | None = None,
        allowance: Allowance = AS_SET,
    ) -> tuple[ApiKey, str]:
        """As `create`: the row and the text."""
        unknown = sorted(set(scopes) - set(SCOPES))
        if unknown:
            raise SpearError(Code.INVALID_REQUEST, f"unknown scope {unknown[0]}; known are {', '.join(SCOPES)}")
        values = {
            "owner": owner or name, "name": name, "scopes": list(scopes), "reads": list(reads), "writes": list(writes),
            "unlimited": unlimited,
        }  # fmt: skip
        with self._database.transaction() as session:
            return self._insert(session, expires_at=expires_at, **values, **asdict(allowance))

    def find(self, token: str) -> Caller | None:
        """The caller behind a key that is valid now."""
        return self.find_all([token]).get(token)

    def find_all(self, tokens: Sequence[str]) -> dict[str, Caller]:
        """The callers behind those of the keys that are valid now, by one query."""
        parts = {token: token.split("_", 2) for token in tokens}
        prefixes = {token: part[1] for token, part in parts.items() if len(part) == 3 and part[0] == "spear"}
        if not prefixes:
            return {}
        now = datetime.now(UTC)
        with self._database.transaction() as session:
            query = select(ApiKey).where(ApiKey.prefix.in_(prefixes.values()))
            rows = {row.prefix: row for row in session.scalars(query)}
            found = {
                token: rows[prefix] for token, prefix in prefixes.items()
                if prefix in rows and _valid(rows[prefix], now=now)
                and hmac.compare_digest(rows[prefix].digest, self._digest(token))
            }  # fmt: skip
            _note_use(session, found.values(), now=now)
        return {token: self._caller(row) for token, row in found.items()}

    def caller(self, key_id: str) -> Caller | None:
        """The caller of a key by its id, while it is valid: for a session that the key once opened."""
        with self._database.transaction() as session:
            row = session.get(ApiKey, key_id)
        return self._caller(row) if row is not None and _valid(row, now=datetime.now(UTC)) else None

    def is_valid(self, key_id: str) -> bool:
        """Whether a key is valid now."""
        with self._database.transaction() as session:
            row = session.get(ApiKey, key_id)
        return row is not None and _valid(row, now=datetime.now(UTC))

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

    def credential(self, key_id: str) -> str | None:
        """The name of the Hub credential that jobs of this key act with; None is the service's own."""
        with self._database.transaction() as session:
            return session.scalars(select(ApiKey.credential).where(ApiKey.id == key_id)).one_or_none()

    def page(self, *, limit: int, before: str | None = None) -> Sequence[ApiKey]:
        """Keys, newest first; `before` is the last id of the page before."""
        query = select(ApiKey).order_by(ApiKey.id.desc()).limit(limit)
        with self._database.transaction() as session:
            return session.scalars(query.where(ApiKey.id < before) if before else query).all()

    def get(self, key_id: str) -> ApiKey:
        """One key. Raises `SpearError(not_found)`."""
        with self._database.transaction() as session:
            return _found(session.get(ApiKey, key_id), key_id)

    def rotate(self, key_id: str, *, overlap: timedelta) -> tuple[ApiKey, str]:
        """A new key with all that this one may do, which itself ends after the overlap; the new row and its text.

        The new key is valid for as long as the old one was made for. Raises `SpearError(not_found)` for a key that
        is not there, `SpearError(too_late)` for one that is not valid any more.
        """
        now = datetime.now(UTC)
        with self._database.transaction() as session:
            old = _found(session.get(ApiKey, key_id, with_for_update=True), key_id)
            if not _valid(old, now=now):
                raise SpearError(Code.TOO_LATE, f"key {key_id} is not valid any more; make a new one", key=key_id)
            lifetime = old.expires_at - old.created_at if old.expires_at else None
            end = now + overlap
            session.execute(
                update(ApiKey).where(ApiKey.id == key_id)
                .values(expires_at=min(old.expires_at or end, end))
            )  # fmt: skip
            expires_at = now + lifetime if lifetime else None
            return self._insert(session, expires_at=expires_at, **{name: getattr(old, name) for name in COPIED})

    def newest(self, name: str, *, owner: str | None = None) -> str:
        """The id of the newest valid key of a name.

        Raises `SpearError(not_found)`, and `SpearError(invalid_request)` where several owners have keys of that name
        and none of them is named.
        """
        now = datetime.now(UTC)
        with self._database.transaction() as session:
            query = select(ApiKey).where(*_named(session, name, owner)).order_by(ApiKey.id.desc())
            row = next((row for row in session.scalars(query) if _valid(row, now=now)), None)
        return _found(row, name).id

    def revoke(self, *, name: str, owner: str | None = None) -> int:
        """Revoke all keys of a name; how many there were. Raises `SpearError(invalid_request)` as `newest` does."""
        with self._database.transaction() as session:
            which = _named(session, name, owner)
        return self._revoke(*which)

    def revoke_one(self, key_id: str) -> ApiKey:
        """Revoke one key; again changes nothing. Raises `SpearError(not_found)`."""
        self._revoke(ApiKey.id == key_id)
        return self.get(key_id)

    def _revoke(self, *which: ColumnElement[bool]) -> int:
        statement = (
            update(ApiKey).where(*which, ApiKey.revoked_at.is_(None)).values(revoked_at=func.now()).returning(ApiKey.id)
        )
        with self._database.transaction() as session:
            return len(session.scalars(statement).all())

    def _insert(self, session: Session, **values: object) -> tuple[ApiKey, str]:
        prefix = secrets.token_hex(4)
        token = f"spear_{prefix}_{secrets.token_urlsafe(32)}"
        row = ApiKey(id=new_id("key"), prefix=prefix, digest=self._digest(token), **values)
        session.add(row)
        session.flush()
        session.refresh(row)
        return row, token

    def _digest(self, token: str) -> bytes:
        return hmac.digest(self._secret, token.encode(), hashlib.sha256)

    def _caller(self, row: ApiKey) -> Caller:
        active, daily = row.max_active, row.bytes_per_day
        quota = Quota(
            max_active=(self._defaults.max_active if active is None else active) or None,
            bytes_per_day=(self._defaults.bytes_per_day if daily is None else daily) or None,
        )
        return Caller(
            key_id=row.id, owner=row.owner, name=row.name, scopes=frozenset(row.scopes), reads=tuple(row.reads),
            writes=tuple(row.writes), unlimited=row.unlimited, credential=row.credential,
            requests_per_minute=row.requests_per_minute, quota=NO_QUOTA if row.unlimited else quota,
        )


def _note_use(session: Session, rows: Iterable[ApiKey], *, now: datetime) -> None:
    """When each was used last, to the minute."""
    due = [row.id for row in rows if row.last_used_at is None or now - row.last_used_at > _USE_STEP]
    if due:
        session.execute(update(ApiKey).where(ApiKey.id.in_(due)).values(last_used_at=func.now()))


def _valid(row: ApiKey, *, now: datetime) -> bool:
    return row.revoked_at is None and (row.expires_at is None or row.expires_at > now)


def _named(session: Session, name: str, owner: str | None) -> tuple[ColumnElement[bool], ...]:
    """The keys of a name, which are one owner's."""
    if owner is not None:
        return ApiKey.name == name, ApiKey.owner == owner
    owners = session.scalars(select(ApiKey.owner).where(ApiKey.name == name).distinct().order_by(ApiKey.owner)).all()
    if len(owners) > 1:
        message = f"keys named {name} belong to {', '.join(owners)}: say whose is meant"
        raise SpearError(Code.INVALID_REQUEST, message, name=name)
    return (ApiKey.name == name,)


def _found(row: ApiKey | None, what: str) -> ApiKey:
    if row is None:
        raise SpearError(Code.NOT_FOUND, f"there is no key {what}", key=what)
    return row
