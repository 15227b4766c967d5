"""What a job leaves behind: scores, report, manifest."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.jobs.tables import Document


def put_documents(session: Session, job_id: str, documents: dict[str, Any]) -> None:
    """Write or replace documents by name."""
    for name, body in documents.items():
        statement = insert(Document).values(job_id=job_id, name=name, body=body)
        session.execute(
            statement.on_conflict_do_update(index_elements=["job_id", "name"], set_={"body": statement.excluded.body})
        )


def get_document(session: Session, job_id: str, name: str) -> dict[str, Any] | None:
    """One document, if the job has come so far."""
    return session.scalars(select(Document.body).where(Document.job_id == job_id, Document.name == name)).one_or_none()
