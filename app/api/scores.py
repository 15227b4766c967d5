"""Scoring a pair without merging it."""


from fastapi import APIRouter, Request, Response

from app.api.auth import Writer
from app.api.jobs import accepted, add_job_routes
from app.api.problems import RESPONSES
from app.api.services import Uses
from app.api.spectra import add_spectrum_route
from app.api.submit import IdempotencyKey, submit
from app.api.views import JobView
from app.jobs.states import Kind
from app.recipes import Scoring, parse_scoring

router = APIRouter(prefix="/scores", tags=["scores"], responses=RESPONSES)


@router.post("", status_code=202, response_model=JobView, operation_id="submit_scoring")
def post_scoring(
    *, recipe: Scoring, request: Request, response: Response, services: Uses, caller: Writer,
    idempotency_key: IdempotencyKey = None,
) -> JobView:
    """Score a pair and show what would be restored; nothing is merged or published."""
    job, replayed = submit(
        services, recipe, caller=caller, key=idempotency_key, request_id=request.state.request_id
    )
    if replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return accepted(services, response, job)


add_job_routes(router, Kind.SCORES, parse=parse_scoring)
add_spectrum_route(router, Kind.SCORES)
