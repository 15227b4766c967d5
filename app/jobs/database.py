"""The engine and its transactions."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session, sessionmaker

DatabaseError = SQLAlchemyError
"""whatever goes wrong in a transaction"""
DatabaseAway = (OperationalError, InterfaceError, InternalError, PoolTimeoutError)
"""of it, what may pass: Postgres is restarting, or too slow, or has failed over to a copy that only reads, or has ended
the transaction of a process that was paused in it"""
ALIVE = {
    "connect_timeout": 5, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3,
    "tcp_user_timeout": 15_000, "application_name": "spear",
}  # fmt: skip
"""a peer that vanished is noticed within seconds, not after the kernel's two hours"""


_LIMITS = text(
    "SET LOCAL lock_timeout = '5s'; SET LOCAL statement_timeout = '30s'; "
    "SET LOCAL idle_in_transaction_session_timeout = '30s'"
)


class Database:
    """Short transactions on Postgres. Objects stay readable after the commit."""

    def __init__(self, url: str, *, pool_size: int = 10) -> None:
        self.engine: Engine = create_engine(
            url, pool_size=pool_size, max_overflow=pool_size, pool_pre_ping=True, pool_timeout=10,
            connect_args=ALIVE,
        )
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Commits when the block ends, rolls back when it raises."""
        with self._sessions.begin() as session:
            session.execute(_LIMITS)
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
