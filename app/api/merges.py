"""Merges: submit, plan, retry."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response

from app.api.auth import Writer
from app.api.jobs import accepted, add_job_routes
from app.api.problems import RESPONSES
from app.api.services import Uses
from app.api.submit import check, plan, submit
from app.api.views import JobView
from app.errors import Code, SpearError
from app.jobs.states import Kind, Status
from app.recipes import Recipe, parse_recipe

router = APIRouter(prefix="/merges", tags=["merges"], responses=RESPONSES)


@router.post("", status_code=202, response_model=JobView, operation_id="submit_merge")
def post_merge(
    *, recipe: Recipe, request: Request, response: Response, services: Uses, caller: Writer,
    idempotency_key: Annotated[str | None, Header()] = None,
) -> JobView:
    """Check the recipe against the Hub and queue the merge."""
    job, replayed = submit(
        services, recipe, caller=caller, key=idempotency_key, request_id=request.state.request_id
    )
    if replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return accepted(services, response, job)


@router.post("/plan", operation_id="plan_merge")
def post_plan(*, recipe: Recipe, services: Uses, caller: Writer) -> dict[str, Any]:
    """The same checks, nothing queued: pinned commits, bytes to move, peak memory, warnings, refusals."""
    try:
        checked = check(services, recipe, caller=caller)
    except SpearError as error:
        if error.kind.status >= 500:
            raise
        refusal = {"code": error.code, "detail": error.message, "pointer": error.pointer, "names": error.names}
        return {"accepted": False, "refusals": [refusal], "warnings": []}
    return {"accepted": True, "refusals": []} | plan(recipe, checked)


@router.post("/{job_id}/retry", status_code=202, response_model=JobView, operation_id="retry_merge")
def post_retry(*, job_id: str, request: Request, response: Response, services: Uses, caller: Writer) -> JobView:
    """Submit the recipe of a failed or cancelled job again, as a new job; its revisions are resolved anew."""
    old = services.store.get(caller, job_id)
    if old.status not in (Status.FAILED, Status.CANCELLED):
        raise SpearError(Code.NOT_RETRYABLE, f"job {job_id} is {old.status}", job=job_id)
    recipe = parse_recipe(old.recipe)
    job, _ = submit(services, recipe, caller=caller, retry_of=job_id, request_id=request.state.request_id)
    return accepted(services, response, job)


add_job_routes(router, Kind.MERGE)
