"""Bringing a database to the newest schema, by Alembic."""

import time
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from psycopg.errors import LockNotAvailable
from sqlalchemy import NullPool, create_engine
from sqlalchemy.exc import OperationalError

from app.errors import Code, SpearError

FOLDER = Path(__file__).parents[2] / "migrations"

PAUSE_SECONDS = 1.0


def config(url: str) -> Config:
    """Alembic's configuration for one database."""
    made = Config()
    made.set_main_option("script_location", str(FOLDER))
    made.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    return made


def upgrade(url: str, revision: str = "head", *, patience_seconds: float = 0) -> None:
    """Apply what is missing; safe to call from several processes at once, and again.

    A table that is in use is waited for at most 3 seconds, for all who come after wait behind a migration that waits.
    Then nothing is changed, and it is tried again while there is patience. Raises `SpearError(not_ready)`.
    """
    end = time.monotonic() + patience_seconds
    while True:
        try:
            return command.upgrade(config(url), revision)
        except OperationalError as error:
            if not isinstance(error.orig, LockNotAvailable):
                raise
            if time.monotonic() + PAUSE_SECONDS > end:
                message = "a transaction holds a table that has to be changed; nothing was changed, try again later"
                raise SpearError(Code.NOT_READY, message) from None
        time.sleep(PAUSE_SECONDS)


def downgrade(url: str, revision: str = "base") -> None:
    """Take back revisions, down to `revision`."""
    command.downgrade(config(url), revision)


def is_current(url: str) -> bool:
    """Whether the database is at the newest revision."""
    engine = create_engine(url, poolclass=NullPool, connect_args={"connect_timeout": 3})
    try:
        with engine.connect() as connection:
            at = MigrationContext.configure(connection).get_current_revision()
    finally:
        engine.dispose()
    return at == ScriptDirectory.from_config(config(url)).get_current_head()
