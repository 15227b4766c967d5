"""Around every request: an id, a bound on the body, and one log line."""

import re
import secrets
import time

import structlog
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import problem
from app.errors import Code, SpearError

log = structlog.get_logger()
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_NUL = re.compile(rb"\x00|(?<!\\)(?:\\\\)*\\u0000")


class RequestContext:
    """Gives each request an id (the caller's `X-Request-Id` if it is sane) and refuses bodies that are too large."""

    def __init__(self, app: ASGIApp, *, max_body_bytes: int) -> None:
        self._app = app
        self._limit = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        sent = request.headers.get("x-request-id", "")
        request.state.request_id = sent if _ID.fullmatch(sent) else f"req_{secrets.token_hex(12)}"
        started = time.monotonic()
        status = 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"].append((b"x-request-id", request.state.request_id.encode()))
            await send(message)

        try:
            await self._bounded(request, receive, answer)
        finally:
            log.info(
                "request", method=request.method, path=request.url.path, status=status,
                milliseconds=round(1000 * (time.monotonic() - started), 1), request_id=request.state.request_id,
            )

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


def _replay(body: bytes, receive: Receive) -> Receive:
    """A receiver that yields the body that was already read, then whatever comes (a disconnect)."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def take() -> Message:
        return waiting.pop() if waiting else await receive()

    return take
