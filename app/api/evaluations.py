"""Measuring models that exist already."""

from fastapi import APIRouter, Request, Response

from app.api.auth import Writer
from app.api.jobs import accepted, add_job_routes
from app.api.problems import RESPONSES
from app.api.services import Uses
from app.api.sheets import add_sheet_route
from app.api.submit import IdempotencyKey, submit
from app.api.views import JobView
from app.jobs.states import Kind
from app.recipes import Measuring, parse_measuring

router = APIRouter(prefix="/evaluations", tags=["evaluations"], responses=RESPONSES)


@router.post("", status_code=202, response_model=JobView, operation_id="submit_evaluation")
def post_evaluation(
    *, recipe: Measuring, request: Request, response: Response, services: Uses, caller: Writer,
    idempotency_key: IdempotencyKey = None,
) -> JobView:
    """Ask the models what the tasks ask; with base and experts, tell retention and gain kept. Nothing is published."""
    job, replayed = submit(
        services, recipe, caller=caller, key=idempotency_key, request_id=request.state.request_id
    )
    if replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return accepted(services, response, job)


add_job_routes(router, Kind.EVALUATION, parse=parse_measuring)
add_sheet_route(router, Kind.EVALUATION)
