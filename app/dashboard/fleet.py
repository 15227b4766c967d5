"""The workers, for administrators: who lives, and what each does."""

from datetime import UTC, datetime

from fastapi import APIRouter, Request, Response

from app.api.services import Uses
from app.dashboard.access import PageRoute, Viewer
from app.dashboard.rendering import part

router = APIRouter(include_in_schema=False, route_class=PageRoute)
SIGNS = {"busy": "running", "idle": "queued", "lost": "failed", "stopped": "cancelled"}
"""a worker's state as the badge of a job that looks like it"""


@router.get("/fleet")
def get_fleet(*, request: Request, services: Uses, caller: Viewer) -> Response:
    """All workers that were heard of lately, and how many jobs wait; it keeps itself up to date."""
    caller.require("admin")
    return part(
        request, "_fleet.html", title="Workers", job_id=None, workers=services.workers.find(), signs=SIGNS,
        counts=services.store.counts(), oldest=services.store.oldest_queued_seconds(), now=datetime.now(UTC),
    )  # fmt: skip
