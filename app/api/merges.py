"""Merges: submit, look, list, cancel, retry, plan."""

import asyncio
import re
import time
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from app.api.auth import Reader, Writer
from app.api.cursors import Cursors
from app.api.problems import RESPONSES
from app.api.services import Services, Uses
from app.api.submit import check, plan, submit
from app.api.views import EventPage, JobPage, JobView, view_event, view_job
from app.errors import Code, SpearError
from app.jobs.states import TERMINAL, Status
from app.jobs.tables import Job
from app.recipes import Recipe, parse_recipe

router = APIRouter(prefix="/merges", tags=["merges"], responses=RESPONSES)

MAX_WAIT_SECONDS = 30
_RETRY_AFTER = "2"


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
    return _accepted(services, response, job)


@router.post("/plan", operation_id="plan_merge")
def post_plan(recipe: Recipe, services: Uses, caller: Writer) -> dict[str, Any]:
    """The same checks, nothing queued: pinned commits, bytes to move, peak memory, warnings, refusals."""
    try:
        checked = check(services, recipe, caller=caller)
    except SpearError as error:
        if error.kind.status >= 500:
            raise
        refusal = {"code": error.code, "detail": error.message, "pointer": error.pointer, "names": error.names}
        return {"accepted": False, "refusals": [refusal], "warnings": []}
    return {"accepted": True, "refusals": []} | plan(recipe, checked)


@router.get("", response_model=JobPage, operation_id="list_merges")
def get_merges(
    *, services: Uses, caller: Reader, status: Annotated[list[Status] | None, Query()] = None,
    target: str | None = None, label: Annotated[list[str] | None, Query(description="name:value")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20, cursor: str | None = None,
) -> JobPage:
    """Jobs, newest first."""
    cursors = Cursors(services.settings.secret, kind="merges")
    jobs = services.store.find(
        caller, limit=limit + 1, before=str(cursors.read(cursor)) if cursor else None, status=status or (),
        target=target, labels=_labels(label or []),
    )
    page, more = jobs[:limit], len(jobs) > limit
    stages = services.store.stages([job.id for job in page])
    return JobPage(
        data=[view_job(job, stages[job.id]) for job in page], next_cursor=cursors.make(page[-1].id) if more else None
    )


@router.get("/{job_id}", response_model=JobView, operation_id="get_merge")
async def get_merge(
    *, job_id: str, response: Response, services: Uses, caller: Reader,
    if_none_match: Annotated[str | None, Header()] = None, prefer: Annotated[str | None, Header()] = None,
) -> Any:
    """One job. `If-None-Match` saves the body; `Prefer: wait=N` holds until the next change."""
    job = await run_in_threadpool(services.store.get, caller, job_id)
    if wait := _wait_seconds(prefer):
        job = await _next_change(services, job, caller=caller, known=if_none_match, seconds=wait)
    tag = _etag(job)
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if if_none_match and tag in [part.strip() for part in if_none_match.split(",")]:
        return Response(status_code=304, headers=headers)
    response.headers.update(headers)
    if job.status not in TERMINAL:
        response.headers["Retry-After"] = _RETRY_AFTER
    stages = await run_in_threadpool(services.store.stages, [job_id])
    return view_job(job, stages[job_id])


@router.post("/{job_id}/cancel", status_code=202, response_model=JobView, operation_id="cancel_merge")
def post_cancel(job_id: str, response: Response, services: Uses, caller: Writer) -> JobView:
    """Cancel the job; asking again changes nothing."""
    return _accepted(services, response, services.store.cancel(caller, job_id))


@router.post("/{job_id}/retry", status_code=202, response_model=JobView, operation_id="retry_merge")
def post_retry(job_id: str, request: Request, response: Response, services: Uses, caller: Writer) -> JobView:
    """Submit the recipe of a failed or cancelled job again, as a new job; its revisions are resolved anew."""
    old = services.store.get(caller, job_id)
    if old.status not in (Status.FAILED, Status.CANCELLED):
        raise SpearError(Code.NOT_RETRYABLE, f"job {job_id} is {old.status}", job=job_id)
    recipe = parse_recipe(old.recipe)
    job, _ = submit(services, recipe, caller=caller, retry_of=job_id, request_id=request.state.request_id)
    return _accepted(services, response, job)


@router.get("/{job_id}/events", response_model=EventPage, operation_id="list_events")
def get_events(
    job_id: str, services: Uses, caller: Reader, limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: str | None = None,
) -> EventPage:
    """What happened, oldest first; the cursor of the last page goes on where it ended, also later."""
    cursors = Cursors(services.settings.secret, kind=f"events.{job_id}")
    after = int(cursors.read(cursor)) if cursor else 0
    events = services.store.events(caller, job_id, after=after, limit=limit)
    return EventPage(
        data=[view_event(event) for event in events], next_cursor=cursors.make(events[-1].seq) if events else None
    )


@router.get("/{job_id}/scores", operation_id="get_scores")
def get_scores(job_id: str, services: Uses, caller: Reader) -> dict[str, Any]:
    """The scores of every scored tensor, as soon as the job has selected."""
    return _document(services, caller=caller, job_id=job_id, name="scores")


@router.get("/{job_id}/report", operation_id="get_report")
def get_report(job_id: str, services: Uses, caller: Reader) -> dict[str, Any]:
    """The versioned report.json: the source of every view."""
    return _document(services, caller=caller, job_id=job_id, name="report")


def _document(services: Services, *, caller: Reader, job_id: str, name: str) -> dict[str, Any]:
    body = services.store.document(caller, job_id, name)
    if body is None:
        raise SpearError(Code.NOT_FOUND, f"job {job_id} has no {name} yet", job=job_id)
    return body


def _accepted(services: Services, response: Response, job: Job) -> JobView:
    response.headers["Location"] = f"/merges/{job.id}"
    response.headers["Retry-After"] = _RETRY_AFTER
    return view_job(job, services.store.stages([job.id])[job.id])


def _etag(job: Job) -> str:
    return f'W/"{job.version}"'


def _wait_seconds(prefer: str | None) -> int:
    found = re.search(r"(?:^|[,;\s])wait=(\d{1,4})(?:$|[,;\s])", prefer or "")
    return min(int(found[1]), MAX_WAIT_SECONDS) if found else 0


async def _next_change(services: Services, job: Job, *, caller: Reader, known: str | None, seconds: int) -> Job:
    """The job after its next change, or as it is when the time is over (or it has ended, or is not what was known)."""
    if job.status in TERMINAL or (known and known != _etag(job)):
        return job
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        await asyncio.sleep(min(0.25, max(0.0, deadline - time.monotonic())))
        if await run_in_threadpool(services.store.version, job.id) != job.version:
            break
    return await run_in_threadpool(services.store.get, caller, job.id)


def _labels(pairs: list[str]) -> dict[str, str]:
    bad = [pair for pair in pairs if ":" not in pair]
    if bad:
        raise SpearError(Code.INVALID_REQUEST, f"label={bad[0]!r}: write label=name:value", pointer="/label")
    return {name: value for name, _, value in (pair.partition(":") for pair in pairs)}
