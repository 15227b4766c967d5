"""Singular spectra: the cache that all jobs share, and those that a job has kept to be looked at.

The cache's key names the algorithm, so that a value is never trusted across a change of the numerics.
"""

import base64
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from app.jobs.caches import trim
from app.jobs.database import Database
from app.jobs.tables import Document, Spectrum

KEY = ("digest", "tensor", "algorithm", "precision", "device_class")


class Spectra:
    """The cache; the least recently used go first.

    Records are JSON objects: the key's fields, `count`, and the packed values as base64 in `data`.
    """

    def __init__(self, database: Database, *, max_bytes: int) -> None:
        self._database = database
        self._max_bytes = max_bytes

    def find(self, digests: Sequence[str]) -> Iterator[dict[str, Any]]:
        """All spectra of the files with these digests, and marks them as used."""
        with self._database.transaction() as session:
            rows = session.scalars(select(Spectrum).where(Spectrum.digest.in_(digests))).all()
            session.execute(update(Spectrum).where(Spectrum.digest.in_(digests)).values(used_at=func.now()))
        for row in rows:
            key = {name: getattr(row, name) for name in KEY}
            yield key | {"count": row.count, "data": base64.b64encode(row.data).decode()}

    def add(self, records: Sequence[dict[str, Any]]) -> None:
        """Keep new spectra; one that is there already stays, one of another algorithm makes room for it."""
        rows = [
            {name: record[name] for name in (*KEY, "count")} | {"data": base64.b64decode(record["data"])}
            for record in records
        ]
        if rows:
            outdated = or_(*(_same_of_another_algorithm(row) for row in rows))
            with self._database.transaction() as session:
                session.execute(delete(Spectrum).where(outdated))
                session.execute(insert(Spectrum).values(rows).on_conflict_do_nothing())

    def trim(self) -> int:
        """Drop the least recently used above the bound; how many."""
        return trim(self._database, Spectrum, key=KEY, max_bytes=self._max_bytes)


def _same_of_another_algorithm(row: dict[str, Any]) -> ColumnElement[bool]:
    """Of whatever device: nobody will ask for it again, as all workers of a release compute in one way."""
    return and_(
        Spectrum.digest == row["digest"], Spectrum.tensor == row["tensor"],
        Spectrum.precision == row["precision"], Spectrum.algorithm != row["algorithm"],
    )


class DrawnSpectra:
    """The spectra of a job's tensors, thinned to what a picture needs: the document `spectra`, tensor by tensor."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, job_id: str, tensor: str) -> dict[str, Any] | None:
        """One tensor's: shape, count, ranks, noise edges, base, adapted and (where it was computed) merged.

        Only this tensor's part leaves the database, however many there are.
        """
        with self._database.transaction() as session:
            entry: dict[str, Any] | None = session.scalar(_part(job_id, "spectra", "tensors", tensor))
            if entry is None:
                return None
            ranks = session.scalar(_part(job_id, "spectra", "ranks", str(entry["count"])))
            shown = session.scalar(_part(job_id, "report", "spectra")) or []
        whole = next((one for one in shown if one["name"] == tensor and one["merged"]), None)
        merged = whole["merged"] if whole and whole["ranks"] == ranks else None
        return entry | {"ranks": ranks, "merged": merged}


def _part(job_id: str, document: str, *path: str) -> Select[tuple[Any]]:
    """Step by step: a whole path is written as an array's text, in which a name's braces and commas mean something."""
    part: Any = Document.body
    for step in path:
        part = part[step]
    return select(part).where(Document.job_id == job_id, Document.name == document)
