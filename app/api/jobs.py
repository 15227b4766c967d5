"""What can be done with a job of any kind: look, list, cancel, retry, follow, read what it left behind."""

import asyncio
import re
import time
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from pydantic import WithJsonSchema

from app.api.auth import Reader, Writer
from app.api.bodies import Body
from app.api.cursors import Cursors
from app.api.intake import RETRY_AFTER, Intake, accepted
from app.api.services import Services, Uses
from app.api.stream import MEDIA_TYPE, last_seen, stream
from app.api.submit import Request
from app.api.views import EventPage, JobPage, JobView, ScorePage, view_event, view_job
from app.errors import Code, SpearError
from app.jobs.states import TERMINAL, Kind, Status
from app.jobs.store import Glimpse
from app.queue.dispatch import announce

MAX_WAIT_SECONDS = 30
Label = Annotated[str, WithJsonSchema({"type": "string", "pattern": ":"})]
_NAMES = {
    Kind.MERGE: ("merge", "merges"), Kind.SCORES: ("scoring", "scorings"),
    Kind.EVALUATION: ("evaluation", "evaluations"), Kind.STUDY: ("study", "studies"),
}  # fmt: skip


def add_job_routes(router: APIRouter, kind: Kind, *, parse: Callable[[Any], Request]) -> None:
    """The routes that all kinds of jobs have; `parse` reads a stored recipe of this kind."""
    _add_list(router, kind)
    _add_one(router, kind)
    _add_retry(router, kind, parse=parse)
    _add_details(router, kind)


def _add_list(router: APIRouter, kind: Kind) -> None:
    many = _NAMES[kind][1]

    @router.get("", response_model=JobPage, operation_id=f"list_{many}")
    def get_jobs(
        *, services: Uses, caller: Reader, status: Annotated[list[Status] | None, Query()] = None,
        target: str | None = None, label: Annotated[list[Label] | None, Query(description="name:value")] = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 20, cursor: str | None = None,
    ) -> JobPage:
        """Jobs, newest first."""
        filters = [sorted(status or ()), target, sorted(label or [])]
        cursors = Cursors(services.settings.secret, kind=many, filters=filters)
        jobs = services.store.find(
            caller, limit=limit + 1, kind=kind, before=str(cursors.read(cursor)) if cursor else None,
            status=status or (), target=target, labels=_labels(label or []),
        )
        page, more = jobs[:limit], len(jobs) > limit
        stages = services.store.stages([job.id for job in page])
        views = [view_job(job, stages[job.id]) for job in page]
        return JobPage(data=views, next_cursor=cursors.make(page[-1].id) if more else None)


def _add_one(router: APIRouter, kind: Kind) -> None:
    one = _NAMES[kind][0]

    @router.get(
        "/{job_id}", response_model=JobView, operation_id=f"get_{one}",
        responses={304: {"description": "The job is as `If-None-Match` knows it"}},
    )
    async def get_job(
        *, job_id: str, services: Uses, caller: Reader,
        if_none_match: Annotated[str | None, Header()] = None, prefer: Annotated[str | None, Header()] = None,
    ) -> Any:
        """One job. `If-None-Match` saves the body; `Prefer: wait=N` holds until the next change."""
        found = await _glimpse(services, caller, job_id, kind)
        headers: dict[str, str] = {}
        if wait := _wait_seconds(prefer):
            found = await _next_change(services, caller, job_id, found, known=if_none_match, seconds=wait)
            headers["Preference-Applied"] = f"wait={wait}"
        if _matches(if_none_match, found.version):
            return Response(status_code=304, headers=headers | _validators(found.version))
        body = services.bodies.get(job_id, found.version)
        if body is None:
            body = await run_in_threadpool(_render, services, caller, job_id, kind)
        headers |= _validators(body.version) | ({} if body.ended else {"Retry-After": RETRY_AFTER})
        return Response(body.content, media_type="application/json", headers=headers)

    @router.post("/{job_id}/cancel", status_code=202, response_model=JobView, operation_id=f"cancel_{one}")
    def post_cancel(*, job_id: str, response: Response, services: Uses, caller: Writer) -> JobView:
        """Cancel the job; asking again changes nothing."""
        job = services.store.cancel(caller, job_id, kind=kind)
        if job.status == Status.CANCELLED and job.attempt:
            announce(services.celery, job.id)  # a worker that hears of it clears what attempts have left
        return accepted(services, response, job)


def _add_retry(router: APIRouter, kind: Kind, *, parse: Callable[[Any], Request]) -> None:
    one = _NAMES[kind][0]

    @router.post("/{job_id}/retry", status_code=202, response_model=JobView, operation_id=f"retry_{one}")
    def post_retry(*, job_id: str, intake: Intake) -> JobView:
        """Submit the recipe of a failed or cancelled job again, as a new job; its revisions are resolved anew."""
        old = intake.services.store.get(intake.caller, job_id, kind=kind)
        if old.status not in (Status.FAILED, Status.CANCELLED):
            raise SpearError(Code.NOT_RETRYABLE, f"job {job_id} is {old.status}", job=job_id)
        return intake.take(parse(old.recipe), retry_of=job_id)


def _add_details(router: APIRouter, kind: Kind) -> None:
    one = _NAMES[kind][0]

    @router.get(
        "/{job_id}/events", response_model=EventPage, operation_id=f"list_{one}_events",
        responses={200: {"content": {MEDIA_TYPE: {"schema": {"type": "string"}}}}},
    )
    def get_events(
        *, job_id: str, services: Uses, caller: Reader, limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        cursor: str | None = None, accept: Annotated[str | None, Header()] = None,
        last_event_id: Annotated[str | None, Header(json_schema_extra={"pattern": "^[0-9]{1,18}$"})] = None,
    ) -> Any:
        """What happened, oldest first; the cursor of the last page goes on where it ended, also later.

        With `Accept: text/event-stream` they come as they happen, after `Last-Event-ID`, until the job has ended.
        """
        seen = last_seen(last_event_id)
        if MEDIA_TYPE in (accept or ""):
            services.store.get(caller, job_id, kind=kind)
            return stream(services, caller, job_id, kind=kind, after=seen)
        cursors = Cursors(services.settings.secret, kind=f"events.{job_id}")
        after = int(cursors.read(cursor)) if cursor else 0
        events = services.store.events(caller, job_id, after=after, limit=limit, kind=kind)
        last = cursors.make(events[-1].seq) if events else cursor
        return EventPage(data=[view_event(event) for event in events], next_cursor=last)

    @router.get("/{job_id}/scores", response_model=ScorePage, operation_id=f"get_{one}_scores")
    def get_scores(*, job_id: str, services: Uses, caller: Reader) -> JSONResponse:
        """The scores of every scored tensor, as soon as the job has made them."""
        # as it was kept: thousands of rows need no second look
        return JSONResponse(_document(services, caller=caller, job_id=job_id, name="scores", kind=kind))

    @router.get("/{job_id}/report", operation_id=f"get_{one}_report")
    def get_report(*, job_id: str, services: Uses, caller: Reader) -> dict[str, Any]:
        """The versioned report.json: the source of every view."""
        return _document(services, caller=caller, job_id=job_id, name="report", kind=kind)


def _document(services: Services, *, caller: Reader, job_id: str, name: str, kind: Kind) -> dict[str, Any]:
    body = services.store.document(caller, job_id, name, kind=kind)
    if body is None:
        raise SpearError(Code.NOT_FOUND, f"job {job_id} has no {name} yet", job=job_id)
    return body


async def _glimpse(services: Services, caller: Reader, job_id: str, kind: Kind) -> Glimpse:
    """Where the job is. Raises `SpearError(not_found)`, also for another caller's job."""
    found = await services.glimpses(job_id)
    if found is None or found.kind != kind or (found.owner != caller.owner and "admin" not in caller.scopes):
        raise SpearError(Code.NOT_FOUND, f"there is no job {job_id}", job=job_id)
    return found


def _render(services: Services, caller: Reader, job_id: str, kind: Kind) -> Body:
    """The job as it is now, kept for whoever asks next."""
    job = services.store.get(caller, job_id, kind=kind)
    content = view_job(job, services.store.stages([job_id])[job_id]).model_dump_json().encode()
    return services.bodies.keep(job_id, Body(version=job.version, ended=job.status in TERMINAL, content=content))


def _validators(version: int) -> dict[str, str]:
    return {"ETag": f'W/"{version}"', "Cache-Control": "no-cache"}


def _matches(if_none_match: str | None, version: int) -> bool:
    """Weak comparison (RFC 9110, 13.1.2), so that a tag without its W/ matches as well."""
    known = {part.strip().removeprefix("W/") for part in (if_none_match or "").split(",")}
    return "*" in known or f'"{version}"' in known


def _wait_seconds(prefer: str | None) -> int:
    found = re.search(r'(?:^|[,;\s])wait\s*=\s*"?(\d{1,4})"?\s*(?:$|[,;])', prefer or "", re.IGNORECASE)
    return min(int(found[1]), MAX_WAIT_SECONDS) if found else 0


async def _next_change(
    services: Services, caller: Reader, job_id: str, found: Glimpse, *, known: str | None, seconds: int
) -> Glimpse:
    """Where the job is after its next change, or when the time is over (or it has ended, or is not what was known)."""
    if found.status in TERMINAL or (known and not _matches(known, found.version)):
        return found
    now, deadline = found, time.monotonic() + seconds
    while time.monotonic() < deadline and now.version == found.version:
        await asyncio.sleep(min(0.25, max(0.0, deadline - time.monotonic())))
        now = await _glimpse(services, caller, job_id, Kind(found.kind))
    return now


def _labels(pairs: list[str]) -> dict[str, str]:
    bad = [pair for pair in pairs if ":" not in pair]
    if bad:
        raise SpearError(Code.INVALID_REQUEST, f"label={bad[0]!r}: write label=name:value", pointer="/label")
    return {name: value for name, _, value in (pair.partition(":") for pair in pairs)}
