"""Studies: many merges of a base and its experts, measured; the named ones published by merges of their own."""

from fastapi import APIRouter, Request, Response

from app.api.auth import Writer
from app.api.exports import add_export_route
from app.api.jobs import accepted, add_job_routes
from app.api.problems import RESPONSES
from app.api.services import Uses
from app.api.sheets import add_sheet_route
from app.api.submit import IdempotencyKey, submit
from app.api.views import JobView
from app.jobs.states import Kind
from app.recipes import Study, parse_study

router = APIRouter(prefix="/studies", tags=["studies"], responses=RESPONSES)


@router.post("", status_code=202, response_model=JobView, operation_id="submit_study")
def post_study(
    *, recipe: Study, request: Request, response: Response, services: Uses, caller: Writer,
    idempotency_key: IdempotencyKey = None,
) -> JobView:
    """Merge and measure every cell of the study; only what `publish` names is published, by merge jobs of its own."""
    job, replayed = submit(
        services, recipe, caller=caller, key=idempotency_key, request_id=request.state.request_id
    )
    if replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return accepted(services, response, job)


add_job_routes(router, Kind.STUDY, parse=parse_study)
add_sheet_route(router, Kind.STUDY)
add_export_route(router, Kind.STUDY, name="study")
