"""Merges: submit and plan."""

from typing import Any

from fastapi import APIRouter

from app.api.auth import Writer
from app.api.deliveries import add_delivery_routes
from app.api.exports import add_export_route
from app.api.intake import Intake
from app.api.jobs import add_job_routes
from app.api.problems import RESPONSES
from app.api.services import Uses
from app.api.sheets import add_sheet_route
from app.api.spectra import add_spectrum_route
from app.api.submit import check, plan
from app.api.views import JobView, PlanView
from app.errors import Code, SpearError
from app.jobs.states import Kind
from app.recipes import parse_recipe
from app.recipes.mergekit import AnyForm, written

router = APIRouter(prefix="/merges", tags=["merges"], responses=RESPONSES)


@router.post("", status_code=202, response_model=JobView, operation_id="submit_merge")
def post_merge(*, form: AnyForm, intake: Intake) -> JobView:
    """Check the recipe, ours or mergekit's, against the Hub and queue the merge."""
    with written(form) as recipe:
        return intake.take(recipe)


@router.post(
    "/plan", operation_id="plan_merge", response_model=PlanView, response_model_exclude_unset=True
)
def post_plan(*, form: AnyForm, services: Uses, caller: Writer) -> dict[str, Any]:
    """The same checks, nothing queued: pinned commits, bytes to move, peak memory, warnings, refusals."""
    try:
        with written(form) as recipe:
            checked = check(services, recipe, caller=caller)
    except SpearError as error:
        if error.kind.status >= 500 or error.code is Code.INVALID_RECIPE:
            raise
        refusal = {"code": error.code, "detail": error.message, "pointer": error.pointer, "names": error.names}
        return {"accepted": False, "refusals": [refusal], "warnings": []}
    return {"accepted": True, "refusals": []} | plan(recipe, checked)


add_job_routes(router, Kind.MERGE, parse=parse_recipe)
add_spectrum_route(router, Kind.MERGE)
add_sheet_route(router, Kind.MERGE)
add_delivery_routes(router, Kind.MERGE)
add_export_route(router, Kind.MERGE, name="merge")
