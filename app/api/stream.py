"""A job's events as server-sent events: from where the reader stopped, until the job has ended."""

import asyncio
import time
from collections.abc import AsyncIterator

from fastapi.concurrency import run_in_threadpool
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event

from app.api.services import Services
from app.api.views import view_event
from app.errors import Code, SpearError
from app.jobs.keys import Caller
from app.jobs.states import TERMINAL, Kind

MEDIA_TYPE = "text/event-stream"
PING_SECONDS = 15
_POLL_SECONDS = 0.5
_PAGE = 500


def last_seen(last_event_id: str | None) -> int:
    """The number in `Last-Event-ID`; raises `SpearError(invalid_request)` for what no stream of ours has sent."""
    if last_event_id is None:
        return 0
    if not last_event_id.isascii() or not last_event_id.isdigit() or len(last_event_id) > 18:
        raise SpearError(Code.INVALID_REQUEST, f"Last-Event-ID: {last_event_id[:50]!r} is not an event's number")
    return int(last_event_id)


def stream(services: Services, caller: Caller, job_id: str, *, kind: Kind, after: int) -> EventSourceResponse:
    """Every event with a number above `after`, now and as it comes."""
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return EventSourceResponse(_events(services, caller, job_id, kind=kind, after=after), headers=headers)


async def _events(services: Services, caller: Caller, job_id: str, *, kind: Kind, after: int) -> AsyncIterator[bytes]:
    version, spoken = -1, time.monotonic()
    while True:
        now = await run_in_threadpool(services.store.version, job_id)
        if now != version:
            version = now
            job = await run_in_threadpool(services.store.get, caller, job_id, kind=kind)
            while events := await run_in_threadpool(
                services.store.events, caller, job_id, after=after, limit=_PAGE, kind=kind
            ):
                for event in events:
                    yield format_sse_event(
                        id=str(event.seq), event=event.type, data_str=view_event(event).model_dump_json()
                    )
                after, spoken = events[-1].seq, time.monotonic()
            if job.status in TERMINAL:
                return
        if time.monotonic() - spoken > PING_SECONDS:
            yield KEEPALIVE_COMMENT
            spoken = time.monotonic()
        await asyncio.sleep(_POLL_SECONDS)
