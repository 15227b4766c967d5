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
from app.jobs.tables import Event

MEDIA_TYPE = "text/event-stream"
PING_SECONDS = 15
KEY_SECONDS = 5
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
    """Every event with a number above `after`, now and as it comes, for as long as the caller's key is valid."""
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return EventSourceResponse(_events(services, caller, job_id, kind=kind, after=after), headers=headers)


async def _events(services: Services, caller: Caller, job_id: str, *, kind: Kind, after: int) -> AsyncIterator[bytes]:
    version, spoken, asked = -1, time.monotonic(), time.monotonic()
    while found := await services.glimpses(job_id):
        if time.monotonic() - asked > KEY_SECONDS:
            if not await run_in_threadpool(services.keys.is_valid, caller.key_id):
                return  # it ran out or was revoked: who comes again is told so
            asked = time.monotonic()
        if found.version != version:
            version = found.version
            async for event in _new(services, caller, job_id, kind=kind, after=after):
                yield format_sse_event(
                    id=str(event.seq), event=event.type, data_str=view_event(event).model_dump_json()
                )
                after, spoken = event.seq, time.monotonic()
            if found.status in TERMINAL:
                return
        if time.monotonic() - spoken > PING_SECONDS:
            yield KEEPALIVE_COMMENT
            spoken = time.monotonic()
        await asyncio.sleep(_POLL_SECONDS)


async def _new(services: Services, caller: Caller, job_id: str, *, kind: Kind, after: int) -> AsyncIterator[Event]:
    while events := await run_in_threadpool(
        services.store.events, caller, job_id, after=after, limit=_PAGE, kind=kind
    ):
        for event in events:
            yield event
        after = events[-1].seq
