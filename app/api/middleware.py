"""Around every request: an id, a bound on the body, one log line, and for those that change something the audit."""

import re
import secrets
import time

import structlog
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars

from app.api.auth import CHANGING
from app.api.limits import headers
from app.api.problems import problem
from app.errors import Code, SpearError
from app.jobs.audit import Audit, Deed
from app.jobs.database import DatabaseError

log = structlog.get_logger()
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_NUL = re.compile(rb"\x00|(?<!\\)(?:\\\\)*\\u0000")


class RequestContext:
    """Gives each request an id (the caller's `X-Request-Id` if it is sane) and refuses bodies that are too large."""

    def __init__(self, app: ASGIApp, *, max_body_bytes: int, audit: Audit) -> None:
        self._app = app
        self._limit = max_body_bytes
        self._audit = audit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        sent = request.headers.get("x-request-id", "")
        request.state.request_id = sent if _ID.fullmatch(sent) else f"req_{secrets.token_hex(12)}"
        bind_contextvars(request_id=request.state.request_id)
        started = time.monotonic()
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] += _added(request)
                await self._record(request, status=status, location=_location(message))  # before the caller hears of it
            await send(message)

        try:
            await self._bounded(request, receive, answer)
        finally:
            if not status:  # it crashed: the answer goes out past us
                status = 500
                await self._record(request, status=status, location=None)
            log.info(
                "request", method=request.method, path=request.url.path, status=status,
                milliseconds=round(1000 * (time.monotonic() - started), 1), request_id=request.state.request_id,
            )

    async def _record(self, request: Request, *, status: int, location: str | None) -> None:
        """Into the audit, if the request was to change something; also where it was refused, but not where flooded."""
        code = getattr(request.state, "code", Code.INTERNAL_ERROR if status == 500 else None)
        if request.method not in CHANGING or code == Code.RATE_LIMITED:
            return
        caller = getattr(request.state, "caller", None)
        deed = Deed(
            action=f"{request.method} {_template(request)}", object=location or request.url.path, status=status,
            code=code, key_id=caller.key_id if caller else None, owner=caller.owner if caller else None,
            request_id=request.state.request_id, address=request.client.host if request.client else None,
        )
        try:
            await run_in_threadpool(self._audit.write, deed)
        except DatabaseError as error:
            log.warning(
                "audit.failed", error=type(error).__name__, action=deed.action, object=deed.object, status=status,
                key=deed.key_id, request_id=deed.request_id,
            )  # fmt: skip

    async def _without_nul(self, request: Request, receive: Receive, send: Send, *, body: bytes) -> bool:
        """Refuses what Postgres cannot store, before anything is asked of it; whether it did."""
        if b"%00" not in request.scope["raw_path"] + request.scope["query_string"] and not _NUL.search(body):
            return False
        error = SpearError(Code.INVALID_REQUEST, "the request holds a NUL character")
        await problem(request, error)(request.scope, receive, send)
        return True

    async def _bounded(self, request: Request, receive: Receive, send: Send) -> None:
        announced = request.headers.get("content-length", "0")
        if announced.isdigit() and int(announced) > self._limit:
            await self._refuse(request, receive, send)
            return
        if request.method in {"GET", "HEAD", "OPTIONS"}:
            if not await self._without_nul(request, receive, send, body=b""):
                await self._app(request.scope, receive, send)
            return
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message["type"] == "http.request" and message.get("more_body", False)
            if len(body) > self._limit:
                await self._refuse(request, receive, send)
                return
        if not await self._without_nul(request, receive, send, body=body):
            await self._app(request.scope, _replay(body, receive), send)

    async def _refuse(self, request: Request, receive: Receive, send: Send) -> None:
        error = SpearError(Code.REQUEST_TOO_LARGE, f"the body is larger than {self._limit} bytes")
        await problem(request, error)(request.scope, receive, send)


def _added(request: Request) -> list[tuple[bytes, bytes]]:
    """The header fields of every answer: the request's id, and the limits where there are some."""
    limits = headers(getattr(request.state, "windows", []))
    return [(b"x-request-id", request.state.request_id.encode())] + [
        (name.lower().encode(), value.encode()) for name, value in limits.items()
    ]


def _location(message: Message) -> str | None:
    return next((value.decode() for name, value in message["headers"] if name == b"location"), None)


def _template(request: Request) -> str:
    """The route as the documentation names it; what no route matches is only "?"."""
    return str(getattr(request.scope.get("route"), "path", "?"))


def _replay(body: bytes, receive: Receive) -> Receive:
    """A receiver that yields the body that was already read, then whatever comes (a disconnect)."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def take() -> Message:
        return waiting.pop() if waiting else await receive()

    return take
