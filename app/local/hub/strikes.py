"""What a fault does to one request, and the hold on its connection that some of them need."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from app.local.hub.store import HubStore


class Protocol(H11Protocol):
    """uvicorn's HTTP/1.1, with the connections in reach so that one can be cut."""

    transports: ClassVar[dict[tuple[str, int], asyncio.Transport]] = {}

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._peer = transport.get_extra_info("peername")
        self.transports[self._peer] = transport

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.transports.pop(self._peer, None)


class Action(BaseModel):
    """What to do, and the figures that some actions take."""

    model_config = ConfigDict(extra="forbid")

    action: Literal[
        "drop", "apply_then_drop", "status", "status_after", "truncate", "slow", "late", "stale", "corrupt", "revoke"
    ]
    status: int = Field(503, ge=400, le=599, description="of `status`, before applying, and `status_after`")
    retry_after: int | None = None
    words: str = Field("Trouble on demand", description="the error of `status` and `status_after`")
    bytes: int = Field(0, ge=0, description="of the body that `truncate` lets through")
    delay: float = Field(0, ge=0, description="seconds that `slow` and `late` wait first")
    bytes_per_second: float | None = Field(None, gt=0, description="of both bodies under `slow`")


@dataclass(frozen=True)
class Strike:
    """One request in trouble; the methods are the actions."""

    what: Action
    app: ASGIApp
    store: HubStore
    scope: Scope
    receive: Receive
    send: Send
    before: Sequence[Message] = ()
    """what was answered at this address the last time, if it is known"""

    async def strike(self) -> None:
        actions: dict[str, Callable[[], Awaitable[None]]] = {
            "drop": self.cut, "apply_then_drop": self.apply_then_drop, "status": self.status,
            "status_after": self.status_after, "truncate": self.truncate, "corrupt": self.corrupt, "slow": self.slow,
            "late": self.late, "stale": self.stale, "revoke": self.revoke,
        }  # fmt: skip
        await actions[self.what.action]()

    async def cut(self) -> None:
        """Close the connection without a word."""
        Protocol.transports[self.scope["client"]].abort()
        await self._gone()

    async def apply_then_drop(self) -> None:
        """All is done, and nobody hears of it."""
        await self.app(self.scope, self.receive, _swallow)
        await self.cut()

    async def status(self) -> None:
        """Refuse before anything is done."""
        async for _ in Request(self.scope, self.receive).stream():
            pass
        await self._refuse()

    async def status_after(self) -> None:
        """All is done, yet the reply is a refusal."""
        await self.app(self.scope, self.receive, _swallow)
        await self._refuse()

    async def truncate(self) -> None:
        """The head and the first bytes of the body, then the connection closes in order."""
        left = self.what.bytes

        async def shorten(message: Message) -> None:
            nonlocal left
            if message["type"] == "http.response.body":
                message = {**message, "body": message.get("body", b"")[:left], "more_body": True}
                left -= len(message["body"])
            await self.send(message)

        await self.app(self.scope, self.receive, shorten)
        Protocol.transports[self.scope["client"]].close()
        await self._gone()

    async def corrupt(self) -> None:
        """The right number of bytes, with the last of every chunk flipped."""

        async def spoil(message: Message) -> None:
            body = message.get("body", b"")
            await self.send({**message, "body": body[:-1] + bytes([body[-1] ^ 0xFF])} if body else message)

        await self.app(self.scope, self.receive, spoil)

    async def slow(self) -> None:
        """A delay before anything, then both bodies at the rate."""
        await asyncio.sleep(self.what.delay)
        rate = self.what.bytes_per_second
        receive, send = (self._sipped(rate), self._dripped(rate)) if rate else (self.receive, self.send)
        await self.app(self.scope, receive, send)

    async def late(self) -> None:
        """The request is taken at once and carried out after the delay, when the client may long have gone."""
        body = b"".join([part async for part in Request(self.scope, self.receive).stream()])
        await asyncio.sleep(self.what.delay)
        waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def take() -> Message:
            return waiting.pop() if waiting else await self.receive()

        await self.app(self.scope, take, self.send)

    async def stale(self) -> None:
        """What was true at the last question: a cache that lags behind."""
        if not self.before:
            await self.app(self.scope, self.receive, self.send)
        for message in self.before:
            await self.send(message)

    async def revoke(self) -> None:
        """The token is revoked just before the request is looked at."""
        token = Headers(scope=self.scope).get("authorization", "").partition(" ")[2]
        await run_in_threadpool(self.store.revoke_token, token)
        await self.app(self.scope, self.receive, self.send)

    def _dripped(self, rate: float) -> Send:
        step = max(1, int(rate / 20))

        async def drip(message: Message) -> None:
            body = message.get("body", b"")
            while len(body) > step:
                await self.send({**message, "body": body[:step], "more_body": True})
                body = body[step:]
                await asyncio.sleep(step / rate)
            await self.send({**message, "body": body} if body else message)

        return drip

    def _sipped(self, rate: float) -> Receive:
        async def sip() -> Message:
            message = await self.receive()
            await asyncio.sleep(len(message.get("body", b"")) / rate)
            return message

        return sip

    async def _refuse(self) -> None:
        headers = {} if self.what.retry_after is None else {"Retry-After": str(self.what.retry_after)}
        reply = JSONResponse({"error": self.what.words}, self.what.status, headers=headers)
        await reply(self.scope, self.receive, self.send)

    async def _gone(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass


async def _swallow(_: Message) -> None:
    """The reply that nobody gets."""
