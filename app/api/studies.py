"""Studies: many merges of a base and its experts, measured; the named ones published by merges of their own."""

from fastapi import APIRouter

from app.api.exports import add_export_route
from app.api.intake import Intake
from app.api.jobs import add_job_routes
from app.api.problems import RESPONSES
from app.api.sheets import add_sheet_route
from app.api.views import JobView
from app.jobs.states import Kind
from app.recipes import Study, parse_study

router = APIRouter(prefix="/studies", tags=["studies"], responses=RESPONSES)


@router.post("", status_code=202, response_model=JobView, operation_id="submit_study")
def post_study(*, recipe: Study, intake: Intake) -> JobView:
    """Merge and measure every cell of the study; only what `publish` names is published, by merge jobs of its own."""
    return intake.take(recipe)


add_job_routes(router, Kind.STUDY, parse=parse_study)
add_sheet_route(router, Kind.STUDY)
add_export_route(router, Kind.STUDY, name="study")
