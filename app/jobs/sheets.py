"""Answer sheets: the cache that all jobs share, so that a base or an expert is asked once; and those of one job."""

import json
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert

from app.jobs.caches import trim
from app.jobs.database import Database
from app.jobs.tables import AnswerSheet, Document

KEY = ("model", "task", "settings")


class AnswerSheets:
    """The cache; the least recently used go first. Records are JSON objects: the key's fields, and `body`."""

    def __init__(self, database: Database, *, max_bytes: int) -> None:
        self._database = database
        self._max_bytes = max_bytes

    def find(self, models: Sequence[str]) -> Iterator[dict[str, Any]]:
        """All sheets of the models with these digests, and marks them as used."""
        with self._database.transaction() as session:
            rows = session.scalars(select(AnswerSheet).where(AnswerSheet.model.in_(models))).all()
            session.execute(update(AnswerSheet).where(AnswerSheet.model.in_(models)).values(used_at=func.now()))
        for row in rows:
            yield {name: getattr(row, name) for name in KEY} | {"body": json.loads(zlib.decompress(row.data))}

    def add(self, record: dict[str, Any]) -> None:
        """Keep a new sheet; one that is there already stays."""
        data = zlib.compress(json.dumps(record["body"]).encode())
        row = {name: record[name] for name in KEY} | {"data": data}
        with self._database.transaction() as session:
            session.execute(insert(AnswerSheet).values(row).on_conflict_do_nothing())

    def trim(self) -> int:
        """Drop the least recently used above the bound; how many."""
        return trim(self._database, AnswerSheet, key=KEY, max_bytes=self._max_bytes)


class JobSheets:
    """The answers that a job's models gave: the document `sheets`, task by task."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def tasks(self, job_id: str) -> list[str] | None:
        """The tasks' labels; none where the job has no sheets."""
        body = Document.body["tasks"]
        names = func.jsonb_object_keys(body)
        query = select(names).where(Document.job_id == job_id, Document.name == "sheets")
        with self._database.transaction() as session:
            found = list(session.scalars(query))
        return sorted(found) or None

    def find(self, job_id: str, task: str) -> dict[str, Any] | None:
        """One task's sheets; only this part leaves the database."""
        query = select(Document.body["tasks"][task]).where(Document.job_id == job_id, Document.name == "sheets")
        with self._database.transaction() as session:
            found: dict[str, Any] | None = session.scalar(query)
        return found
