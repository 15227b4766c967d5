"""Scoring a pair without merging it."""

from typing import Annotated

from fastapi import APIRouter, Header, Request, Response

from app.api.auth import Writer
from app.api.jobs import accepted, add_job_routes
from app.api.problems import RESPONSES
from app.api.services import Uses
from app.api.submit import submit
from app.api.views import JobView
from app.errors import Code, SpearError
from app.jobs.states import Kind, Status
from app.recipes import Scoring, parse_scoring

router = APIRouter(prefix="/scores", tags=["scores"], responses=RESPONSES)


@router.post("", status_code=202, response_model=JobView, operation_id="submit_scoring")
def post_scoring(
    *, recipe: Scoring, request: Request, response: Response, services: Uses, caller: Writer,
    idempotency_key: Annotated[str | None, Header()] = None,
) -> JobView:
    """Score a pair and show what would be restored; nothing is merged or published."""
    job, replayed = submit(
        services, recipe, caller=caller, key=idempotency_key, request_id=request.state.request_id
    )
    if replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return accepted(services, response, job)


@router.post("/{job_id}/retry", status_code=202, response_model=JobView, operation_id="retry_scoring")
def post_retry(*, job_id: str, request: Request, response: Response, services: Uses, caller: Writer) -> JobView:
    """Submit a failed or cancelled scoring again, as a new job."""
    old = services.store.get(caller, job_id, kind=Kind.SCORES)
    if old.status not in (Status.FAILED, Status.CANCELLED):
        raise SpearError(Code.NOT_RETRYABLE, f"job {job_id} is {old.status}", job=job_id)
    recipe = parse_scoring(old.recipe)
    job, _ = submit(services, recipe, caller=caller, retry_of=job_id, request_id=request.state.request_id)
    return accepted(services, response, job)


add_job_routes(router, Kind.SCORES)
