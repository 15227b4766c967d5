"""Trouble on demand, for tests: the same that a real Hub and a real network make.

`POST /_faults` takes a list of rules, `DELETE` forgets them, `GET` tells how often each struck. `GET /_requests` lists
what was asked (never a token); `DELETE` forgets it. All of it exists with `--faults` only.
"""

import re
import time
from collections import deque
from random import Random
from typing import Any
from urllib.parse import unquote

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, TypeAdapter, ValidationError
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.local.hub.store import HubStore
from app.local.hub.strikes import Action, Strike


class Match(BaseModel):
    """Which requests: all, unless a method, a pattern for the decoded path, or parts (`ranged`) are asked for."""

    model_config = ConfigDict(extra="forbid")

    method: str = ""
    path: re.Pattern[str] = re.compile("")
    ranged: bool | None = None

    def meets(self, scope: Scope) -> bool:
        ranged = "range" in Headers(scope=scope)
        return (
            self.method in {"", scope["method"]}
            and self.ranged in {None, ranged}
            and self.path.search(_path(scope)) is not None
        )


class Rule(Action):
    """One kind of trouble: it strikes `times` requests (None: all), after letting `after` of them pass.

    With a `share` below 1 it strikes that part of them, drawn by `seed`.
    """

    match: Match = Match()
    times: int | None = Field(1, ge=0)
    after: int = Field(0, ge=0)
    share: float = Field(1, gt=0, le=1)
    seed: int = 0
    _seen: int = PrivateAttr(0)
    _hits: int = PrivateAttr(0)
    _random: Random = PrivateAttr(default_factory=Random)

    def model_post_init(self, _: Any) -> None:
        self._random.seed(self.seed)

    def strikes(self, scope: Scope) -> bool:
        if not self.match.meets(scope):
            return False
        self._seen += 1
        struck = self._seen > self.after and (self.times is None or self._hits < self.times)
        struck = struck and self._random.random() < self.share
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
        self._answers: dict[str, tuple[float, list[Message]]] = {}
        """the last answers at the addresses that a `stale` rule is about, and when they were given"""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["path"] in {"/_faults", "/_requests"}:
            await (await self._control(Request(scope, receive)))(scope, receive, send)
        else:
            await self._serve(scope, receive, self._recorded(scope, send))

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        rule = next((rule for rule in self._rules if rule.strikes(scope)), None)
        at, answer = self._answers.get(_path(scope), (0.0, []))
        recent = rule is None or not rule.delay or time.monotonic() - at <= rule.delay
        if any(one.action == "stale" and one.match.meets(scope) for one in self._rules):
            send = self._remembered(scope, send)
        if rule is None:
            await self._app(scope, receive, send)
        else:
            await Strike(rule, self._app, self._store, scope, receive, send, answer if recent else ()).strike()

    def _remembered(self, scope: Scope, send: Send) -> Send:
        answer: list[Message] = []

        async def remember(message: Message) -> None:
            answer.append(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                self._answers[_path(scope)] = time.monotonic(), answer
            await send(message)

        return remember

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


def _path(scope: Scope) -> str:
    return unquote(scope["raw_path"].decode("latin-1"))
