"""Trouble on demand, for tests: the same that a real Hub and a real network make.

`POST /_faults` takes a list of rules, `DELETE` forgets them, `GET` tells how often each struck. `GET /_requests` lists
what was asked (never a token); `DELETE` forgets it. All of it exists with `--faults` only.
"""

import asyncio
import json
import re
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, Literal
from urllib.parse import unquote

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, TypeAdapter, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from app.local.hub.store import HubStore


class Protocol(H11Protocol):
    """uvicorn's HTTP/1.1, with the connections in reach so that one can be cut."""

    open: ClassVar[dict[tuple[str, int], asyncio.Transport]] = {}

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.open[transport.get_extra_info("peername")] = transport
        self._peer = transport.get_extra_info("peername")

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.open.pop(self._peer, None)


class Match(BaseModel):
    model_config = ConfigDict(extra="forbid")

    method: str = ""
    path: re.Pattern[str] = re.compile("")


class Rule(BaseModel):
    """One kind of trouble: it strikes `times` requests (None: all), after letting `after` of them pass."""

    model_config = ConfigDict(extra="forbid")

    match: Match = Match()
    action: Literal["drop", "apply_then_drop", "status", "status_after", "truncate", "slow", "corrupt", "revoke"]
    times: int | None = Field(1, ge=0)
    after: int = Field(0, ge=0)
    status: int = Field(503, ge=400, le=599)
    retry_after: int | None = None
    bytes: int = Field(0, ge=0)
    delay: float = Field(0, ge=0)
    bytes_per_second: float | None = Field(None, gt=0)
    _seen: int = PrivateAttr(0)
    _hits: int = PrivateAttr(0)

    def strikes(self, scope: Scope) -> bool:
        if self.match.method not in {"", scope["method"]} or not self.match.path.search(_path(scope)):
            return False
        self._seen += 1
        struck = self._seen > self.after and (self.times is None or self._hits < self.times)
        self._hits += struck
        return struck

    def counted(self) -> dict[str, Any]:
        return {**self.model_dump(mode="json"), "seen": self._seen, "hits": self._hits}


class Faults:
    """Stands before the application: strikes by the rules and keeps the list of requests."""

    def __init__(self, app: ASGIApp, *, store: HubStore) -> None:
        self._app = app
        self._store = store
        self._rules: list[Rule] = []
        self._requests: deque[dict[str, Any]] = deque(maxlen=100_000)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["path"] in {"/_faults", "/_requests"}:
            await (await self._control(Request(scope, receive)))(scope, receive, send)
        else:
            send = self._recorded(scope, send)
            rule = next((rule for rule in self._rules if rule.strikes(scope)), None)
            await (_ACTIONS[rule.action](self, rule, scope, receive, send) if rule else self._app(scope, receive, send))

    async def _control(self, request: Request) -> Response:
        faults = request.url.path == "/_faults"
        if request.method == "DELETE":
            (self._rules if faults else self._requests).clear()
        elif request.method == "POST" and faults:
            try:
                self._rules += TypeAdapter(list[Rule]).validate_json(await request.body())
            except ValidationError as error:
                return JSONResponse({"error": str(error)}, 400)
        elif request.method != "GET":
            return JSONResponse({"error": "Method not allowed"}, 405)
        return JSONResponse([rule.counted() for rule in self._rules] if faults else list(self._requests))

    def _recorded(self, scope: Scope, send: Send) -> Send:
        """Written down before it is sent: who has the reply finds the request in the list."""
        asked = {"method": scope["method"], "path": _path(scope), "range": Headers(scope=scope).get("range")}
        entry: dict[str, Any] = {**asked, "status": None, "bytes": 0}
        self._requests.append(entry)

        async def record(message: Message) -> None:
            if message["type"] == "http.response.start":
                entry["status"] = message["status"]
            entry["bytes"] += len(message.get("body", b""))
            await send(message)

        return record

    async def drop(self, rule: Rule, scope: Scope, receive: Receive, send: Send) -> None:
        await _cut(scope, receive)

    async def apply_then_drop(self, rule: Rule, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, _swallow)
        await _cut(scope, receive)

    async def status(self, rule: Rule, scope: Scope, receive: Receive, send: Send) -> None:
        async for _ in Request(scope, receive).stream():
            pass
        await _reply(rule)(scope, receive, send)

    async def status_after(self, rule: Rule, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, _swallow)
        await _reply(rule)(scope, receive, send)

    async def truncate(self, rule: Rule, scope: Scope, receive: Receive, send: Send) -> None:
        """The head and `bytes` bytes of the body, then the connection closes in order."""
        left = rule.bytes

        async def shorten(message: Message) -> None:
            nonlocal left
            if message["type"] == "http.response.body":
                message = {**message, "body": message.get("body", b"")[: max(left, 0)], "more_body": True}
                left -= len(message["body"])
            await send(message)

        await self._app(scope, receive, shorten)
        Protocol.open[scope["client"]].close()
        await _gone(receive)

    async def corrupt(self, rule: Rule, scope: Scope, receive: Receive, send: Send) -> None:
        """The right number of bytes, with the last of every chunk flipped."""

        async def spoil(message: Message) -> None:
            body = message.get("body", b"")
            await send({**message, "body": body[:-1] + bytes([body[-1] ^ 0xFF])} if body else message)

        await self._app(scope, receive, spoil)

    async def slow(self, rule: Rule, scope: Scope, receive: Receive, send: Send) -> None:
        """`delay` seconds before anything, then both bodies at `bytes_per_second`."""
        await asyncio.sleep(rule.delay)
        if rule.bytes_per_second is None:
            await self._app(scope, receive, send)
            return
        rate = rule.bytes_per_second

        async def drip(message: Message) -> None:
            body = message.get("body", b"")
            step = max(1, int(rate / 20))
            for start in range(step, len(body), step):
                await send({**message, "body": body[start - step : start], "more_body": True})
                await asyncio.sleep(step / rate)
            done = (len(body) - 1) // step * step if body else 0
            await send({**message, "body": body[done:]} if body else message)

        async def sip() -> Message:
            message = await receive()
            await asyncio.sleep(len(message.get("body", b"")) / rate)
            return message

        await self._app(scope, sip, drip)

    async def revoke(self, rule: Rule, scope: Scope, receive: Receive, send: Send) -> None:
        """The token is revoked just before the request is looked at."""
        token = Headers(scope=scope).get("authorization", "").partition(" ")[2]
        await run_in_threadpool(self._store.revoke_token, token)
        await self._app(scope, receive, send)


_ACTIONS: dict[str, Callable[[Faults, Rule, Scope, Receive, Send], Awaitable[None]]] = {
    "drop": Faults.drop, "apply_then_drop": Faults.apply_then_drop, "status": Faults.status,
    "status_after": Faults.status_after, "truncate": Faults.truncate, "corrupt": Faults.corrupt, "slow": Faults.slow,
    "revoke": Faults.revoke,
}  # fmt: skip


def _path(scope: Scope) -> str:
    return unquote(scope["raw_path"].decode("latin-1"))


def _reply(rule: Rule) -> Response:
    headers = {} if rule.retry_after is None else {"Retry-After": str(rule.retry_after)}
    return JSONResponse({"error": "Trouble on demand"}, rule.status, headers=headers)


async def _swallow(message: Message) -> None:
    """The reply that nobody gets."""


async def _cut(scope: Scope, receive: Receive) -> None:
    """Close the connection without a word."""
    Protocol.open[scope["client"]].abort()
    await _gone(receive)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
