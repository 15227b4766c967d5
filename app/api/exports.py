"""What a job found, as a file for other programs: made by the worker, handed out here."""

import base64
from typing import Any, Literal

from fastapi import APIRouter, Response

from app.api.auth import Reader
from app.api.services import Uses
from app.errors import Code, SpearError
from app.jobs.states import Kind

Format = Literal["csv", "parquet", "html"]
_FILES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file",
        "content": {
            name: {"schema": {"type": "string"}}
            for name in ("text/csv", "application/vnd.apache.parquet", "text/html")
        },
    }
}
_SEALED = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; sandbox"
"""the page shows itself and nothing else, wherever it is opened"""


def add_export_route(router: APIRouter, kind: Kind, *, name: str) -> None:
    """`GET /{job_id}/export`, for kinds of jobs whose worker leaves exports."""

    @router.get("/{job_id}/export", operation_id=f"export_{name}", responses=_FILES, response_class=Response)
    def get_export(*, job_id: str, services: Uses, caller: Reader, format: Format = "csv") -> Response:  # noqa: A002
        """A study's merges and tasks, or the points of a merge's trade-off: CSV, Parquet, or one HTML page."""
        made = services.store.document(caller, job_id, "exports", kind=kind)
        if made is None or format not in made:
            raise SpearError(Code.NOT_FOUND, f"job {job_id} has nothing to export yet", job=job_id)
        return Response(
            base64.b64decode(made[format]["base64"]), media_type=made[format]["media_type"],
            headers={
                "Content-Disposition": f'attachment; filename="{job_id}.{format}"',
                "Content-Security-Policy": _SEALED, "X-Content-Type-Options": "nosniff",
            },
        )
