"""How a database is, for `spear doctor`."""

import time
from dataclasses import dataclass

from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from app.jobs.migrate import config


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What was seen; `error` in one line where nothing was. `clock_seconds` is its clock minus ours."""

    error: str = ""
    version: str = ""
    revision: str | None = None
    head: str | None = None
    seconds: float = 0.0
    clock_seconds: float = 0.0


def look(url: str, *, timeout_seconds: int = 3) -> Condition:
    """Connect once, ask, and leave. Changes nothing; never raises."""
    try:
        engine = create_engine(url, poolclass=NullPool, connect_args={"connect_timeout": timeout_seconds})
    except (SQLAlchemyError, ImportError) as error:
        return Condition(error=f"SPEAR_DATABASE_URL is not a database's address: {error}")
    began = time.monotonic()
    try:
        with engine.connect() as connection:
            version = str(connection.scalar(text("SHOW server_version")))
            asked = time.time()
            theirs = float(connection.scalar(text("SELECT extract(epoch FROM clock_timestamp())")) or 0)
            middle = (asked + time.time()) / 2
            revision = MigrationContext.configure(connection).get_current_revision()
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        return Condition(error=str(cause).strip().splitlines()[0])
    finally:
        engine.dispose()
    head = ScriptDirectory.from_config(config(url)).get_current_head()
    return Condition(
        version=version.partition(" ")[0], revision=revision, head=head, seconds=time.monotonic() - began,
        clock_seconds=theirs - middle,
    )  # fmt: skip
