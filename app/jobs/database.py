"""The engine and its transactions."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

DatabaseError = SQLAlchemyError
"""what callers catch when Postgres is away"""


class Database:
    """Short transactions on Postgres. Objects stay readable after the commit."""

    def __init__(self, url: str, *, pool_size: int = 10) -> None:
        self.engine: Engine = create_engine(
            url, pool_size=pool_size, max_overflow=pool_size, pool_pre_ping=True, pool_timeout=10,
            connect_args={"connect_timeout": 5, "application_name": "spear"},
        )
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Commits when the block ends, rolls back when it raises."""
        with self._sessions.begin() as session:
            session.execute(text("SET LOCAL lock_timeout = '5s'; SET LOCAL statement_timeout = '30s'"))
            yield session

    def answers(self) -> bool:
        """Whether a query gets through."""
        try:
            with self.engine.connect() as connection:
                connection.execute(text("SELECT 1"))
        except SQLAlchemyError:
            return False
        return True

    def close(self) -> None:
        self.engine.dispose()
