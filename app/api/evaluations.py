"""Measuring models that exist already."""

from fastapi import APIRouter

from app.api.intake import Intake
from app.api.jobs import add_job_routes
from app.api.problems import RESPONSES
from app.api.sheets import add_sheet_route
from app.api.views import JobView
from app.jobs.states import Kind
from app.recipes import Measuring, parse_measuring

router = APIRouter(prefix="/evaluations", tags=["evaluations"], responses=RESPONSES)


@router.post("", status_code=202, response_model=JobView, operation_id="submit_evaluation")
def post_evaluation(*, recipe: Measuring, intake: Intake) -> JobView:
    """Ask the models what the tasks ask; with base and experts, tell retention and gain kept. Nothing is published."""
    return intake.take(recipe)


add_job_routes(router, Kind.EVALUATION, parse=parse_measuring)
add_sheet_route(router, Kind.EVALUATION)
