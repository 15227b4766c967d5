"""What the caches in the database share: bounded by their bytes, the least recently used go first."""

from collections.abc import Sequence

from sqlalchemy import delete, func, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute

from app.jobs.database import Database
from app.jobs.tables import AnswerSheet, Spectrum


def trim(database: Database, table: type[AnswerSheet | Spectrum], *, key: Sequence[str], max_bytes: int) -> int:
    """Drop the least recently used rows whose `data` lie above the bound; how many."""
    columns: list[InstrumentedAttribute[str]] = [getattr(table, name) for name in key]
    size = func.octet_length(table.data)
    running = func.sum(size).over(order_by=(table.used_at.desc(), *columns)).label("running")
    sums = select(*columns, running).subquery()
    excess = select(*(sums.c[name] for name in key)).where(sums.c.running > max_bytes)
    statement = delete(table).where(tuple_(*columns).in_(excess)).returning(columns[0])
    with database.transaction() as session:
        return len(session.scalars(statement).all())
