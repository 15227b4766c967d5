"""`spear keys`: API keys, straight in the database."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from app.jobs.database import Database
from app.jobs.keys import Keys
from app.settings import load

keys = typer.Typer(no_args_is_help=True, help="API keys.")


@keys.command()
def create(
    name: str, *, scope: Annotated[list[str], typer.Option(help="merges:read, merges:write or admin; repeatable")],
    read: Annotated[list[str] | None, typer.Option(help="namespace or repo that may be read; repeatable")] = None,
    write: Annotated[list[str] | None, typer.Option(help="namespace or repo that may be written; repeatable")] = None,
    owner: Annotated[str | None, typer.Option(help="whose jobs these are; the name, if not given")] = None,
    days: Annotated[int | None, typer.Option(min=1, help="valid for so many days")] = None,
) -> None:
    """Make a key and print it, this once."""
    expires = datetime.now(UTC) + timedelta(days=days) if days else None
    made = _keys().create(
        name=name, owner=owner, scopes=scope, reads=read or (), writes=write or (), expires_at=expires
    )
    print(made)


@keys.command()
def revoke(name: str) -> None:
    """Revoke all keys of a name."""
    count = _keys().revoke(name=name)
    print(f"{count} revoked")
    if not count:
        raise typer.Exit(1)


def _keys() -> Keys:
    settings = load()
    if not settings.database_url:
        raise ValueError("SPEAR_DATABASE_URL is not set")
    return Keys(Database(settings.database_url, pool_size=1), secret=settings.secret)
