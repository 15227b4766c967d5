"""`spear keys`: API keys, straight in the database. What is done here stands in the audit too."""

import getpass
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from app.console import tables
from app.console.options import AsJson, flag
from app.console.screen import Exit, emit, err

if TYPE_CHECKING:  # the database's libraries are loaded by these commands alone
    from app.jobs.audit import Audit
    from app.jobs.keys import Keys
    from app.jobs.tables import ApiKey

keys = typer.Typer(no_args_is_help=True, help="API keys.")

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_PAGE = 100
Owner = Annotated[str | None, typer.Option(help="whose keys, where several owners have keys of this name")]


@keys.command()
def create(
    name: Annotated[str, typer.Argument(help="what the key is called")], *,
    scope: Annotated[list[str], typer.Option(help="merges:read, merges:write or admin; repeatable")],
    read: Annotated[list[str] | None, typer.Option(help="namespace or repo that may be read; repeatable")] = None,
    write: Annotated[list[str] | None, typer.Option(help="namespace or repo that may be written; repeatable")] = None,
    owner: Annotated[str | None, typer.Option(help="whose jobs these are; the name, if not given")] = None,
    days: Annotated[int | None, typer.Option(min=1, help="valid for so many days")] = None,
    unlimited: Annotated[bool, flag("--unlimited", words="no limits on requests, jobs or bytes")] = False,
    credential: Annotated[str | None, typer.Option(help="the Hub credential that its jobs act with")] = None,
    requests_per_minute: Annotated[int | None, typer.Option(min=1, help="in place of the service's own")] = None,
    max_active: Annotated[int | None, typer.Option(min=0, help="jobs that have not ended")] = None,
    max_running: Annotated[int | None, typer.Option(min=0, help="jobs at work at once")] = None,
    bytes_per_day: Annotated[int | None, typer.Option(min=0, help="planned input bytes in a UTC day")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it, this once."""
    from app.jobs.keys import Allowance

    expires = datetime.now(UTC) + timedelta(days=days) if days else None
    allowance = Allowance(
        credential=credential, requests_per_minute=requests_per_minute, max_active=max_active, max_running=max_running,
        bytes_per_day=bytes_per_day,
    )  # fmt: skip
    with _desk() as desk:
        row, token = desk.keys.add(
            name=name, owner=owner, scopes=scope, reads=read or (), writes=write or (), unlimited=unlimited,
            expires_at=expires, allowance=allowance,
        )
        desk.note("create", f"/keys/{row.id}")
    _tell(row, token, as_json=as_json)


@keys.command(name="list")
def list_keys(*, as_json: AsJson = False) -> None:
    """All keys, newest first, without their text."""
    with _desk() as desk:
        rows = desk.rows()
    if as_json:
        emit([_plain(row) for row in rows])
        return
    heads = ("prefix", "name", "owner", "scopes", "reads", "writes", "last used", "state")
    tables.table(heads, [_cells(row) for row in rows])


@keys.command()
def rotate(
    name: str, *, owner: Owner = None,
    overlap: Annotated[str, typer.Option(help="how long the old key stays: 90s, 30m, 24h, 7d")] = "24h",
    as_json: AsJson = False,
) -> None:
    """Make a key that may the same as the newest one of this name, and print it; the old one ends after the overlap."""
    span = _span(overlap)
    with _desk() as desk:
        old = desk.keys.newest(name, owner=owner)
        row, token = desk.keys.rotate(old, overlap=span)
        desk.note("rotate", f"/keys/{row.id}")
    err.print(f"the old key ends at {datetime.now(UTC) + span:%Y-%m-%d %H:%M:%S} UTC")
    _tell(row, token, as_json=as_json)


@keys.command()
def revoke(name: str, *, owner: Owner = None, as_json: AsJson = False) -> None:
    """Revoke all keys of a name."""
    with _desk() as desk:
        count = desk.keys.revoke(name=name, owner=owner)
        desk.note("revoke", name, status=200 if count else 404)
    emit({"revoked": count}) if as_json else print(f"{count} revoked")
    if not count:
        raise typer.Exit(Exit.FAILED)


def _tell(row: "ApiKey", token: str, *, as_json: bool) -> None:
    """The new key, this once."""
    emit({**_plain(row), "key": token}) if as_json else print(token)


@dataclass(frozen=True)
class _Desk:
    """The keys, and the book in which everything is noted."""

    keys: "Keys"
    audit: "Audit"

    def note(self, verb: str, what: str, *, status: int = 200) -> None:
        from app.jobs.audit import Deed

        who = f"cli:{getpass.getuser()}"
        self.audit.write(Deed(action=f"spear keys {verb}", object=what, status=status, owner=who))

    def rows(self) -> list["ApiKey"]:
        rows: list[ApiKey] = []
        while page := self.keys.page(limit=_PAGE, before=rows[-1].id if rows else None):
            rows += page
        return rows


@contextmanager
def _desk() -> Iterator[_Desk]:
    from app import cores
    from app.jobs.audit import Audit
    from app.jobs.database import Database
    from app.jobs.keys import Keys
    from app.settings import load

    cores.forbid()
    settings = load()
    if not settings.database_url:
        raise ValueError("SPEAR_DATABASE_URL is not set")
    database = Database(settings.database_url, pool_size=1)
    try:
        yield _Desk(Keys(database, secret=settings.secret), Audit(database, days=settings.audit_days))
    finally:
        database.close()


def _span(text: str) -> timedelta:
    found = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if not found:
        raise ValueError(f"{text!r} is not a time: write 90s, 30m, 24h or 7d")
    return timedelta(seconds=int(found[1]) * _UNITS[found[2]])


def _cells(row: "ApiKey") -> tuple[str, ...]:
    used = f"{row.last_used_at:%Y-%m-%d %H:%M}" if row.last_used_at else "never"
    grants = (" ".join(one) for one in (row.scopes, row.reads, row.writes))
    return (f"spear_{row.prefix}", row.name, row.owner, *grants, used, _state(row))


def _state(row: "ApiKey") -> str:
    if row.revoked_at:
        return f"revoked {row.revoked_at:%Y-%m-%d}"
    if row.expires_at is None:
        return "valid"
    word = "valid until" if row.expires_at > datetime.now(UTC) else "ran out"
    return f"{word} {row.expires_at:%Y-%m-%d %H:%M}"


def _plain(row: "ApiKey") -> dict[str, object]:
    from app.jobs.keys import COPIED

    times = {name: getattr(row, name) for name in ("created_at", "expires_at", "revoked_at", "last_used_at")}
    return {
        "id": row.id, "prefix": row.prefix, **{name: getattr(row, name) for name in COPIED},
        **{name: at.isoformat() if at else None for name, at in times.items()},
    }
