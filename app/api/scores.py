"""Scoring a pair without merging it."""

from fastapi import APIRouter

from app.api.intake import Intake
from app.api.jobs import add_job_routes
from app.api.problems import RESPONSES
from app.api.spectra import add_spectrum_route
from app.api.views import JobView
from app.jobs.states import Kind
from app.recipes import Scoring, parse_scoring

router = APIRouter(prefix="/scores", tags=["scores"], responses=RESPONSES)


@router.post("", status_code=202, response_model=JobView, operation_id="submit_scoring")
def post_scoring(*, recipe: Scoring, intake: Intake) -> JobView:
    """Score a pair and show what would be restored; nothing is merged or published."""
    return intake.take(recipe)


add_job_routes(router, Kind.SCORES, parse=parse_scoring)
add_spectrum_route(router, Kind.SCORES)
