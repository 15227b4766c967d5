"""The manners of the protocol: how addresses and bodies are read, who is asking, and how pages follow each other."""

import json
from collections.abc import AsyncIterator
from typing import Any, TypeVar
from urllib.parse import quote, unquote

from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.local.hub.accounts import Caller
from app.local.hub.errors import HubError, repo_not_found, unknown_caller
from app.local.hub.names import KINDS
from app.local.hub.repository import Repository
from app.local.hub.store import HubStore

JSON_BYTES = 16_000_000
BAD_TOKEN = "Invalid credentials in Authorization header"  # noqa: S105 - the client compares with this very text
Item = TypeVar("Item")


class RawPath:
    """Route on the address as it was sent: in `tree/exp%2F1/a/b` only the encoding tells the revision from the path."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "path": scope["raw_path"].decode("latin-1")}
        await self._app(scope, receive, send)


class Segment(Convertor[str]):
    """One segment of the address, decoded exactly once."""

    regex = "[^/]+"

    def convert(self, value: str) -> str:
        return unquote(value)

    def to_string(self, value: str) -> str:
        return quote(value, safe="")


class Rest(Segment):
    """All that is left of the address, decoded exactly once."""

    regex = ".+"


class Kind(Segment):
    """Models or datasets."""

    regex = "|".join(KINDS)


register_url_convertor("segment", Segment())
register_url_convertor("rest", Rest())
register_url_convertor("kind", Kind())


def store_of(request: Request) -> HubStore:
    """The store behind the application."""
    store: HubStore = request.app.state.store
    return store


def page_size_of(request: Request) -> int:
    """How many rows one page has."""
    size: int = request.app.state.page_size
    return size


def caller_of(request: Request) -> Caller | None:
    """Who asks; None is anybody. Raises `HubError` 401 for a token that is not known."""
    header = request.headers.get("authorization")
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    caller = store_of(request).caller(token.strip()) if scheme.lower() == "bearer" else None
    if caller is None:
        raise HubError(401, BAD_TOKEN)
    return caller


def readable(request: Request, *, contents: bool = False) -> Repository:
    """The repository of the address, if the caller may see it (and, for `contents`, open its files).

    To strangers a private repository looks exactly like a missing one, as on huggingface.co.
    """
    caller = caller_of(request)
    place = request.path_params
    repository = store_of(request).repository(place.get("kind", "models"), f"{place['namespace']}/{place['name']}")
    member = repository is not None and caller is not None and caller.belongs_to(repository.namespace)
    if repository is None or (repository.settings()["private"] and not member):
        raise repo_not_found() if caller else unknown_caller()
    if contents and not member:
        _require_grant(repository, caller)
    return repository


def writable(request: Request) -> tuple[Repository, Caller]:
    """The repository of the address and who writes to it. Raises `HubError` 401, 403 or 404."""
    repository = readable(request)
    return repository, writer_of(request, namespace=repository.namespace)


def writer_of(request: Request, *, namespace: str) -> Caller:
    """The caller, who may write to the namespace. Raises `HubError` 401 or 403."""
    caller = caller_of(request)
    if caller is None:
        raise unknown_caller()
    if not caller.belongs_to(namespace):
        raise HubError(403, f'You don\'t have the rights to write to the namespace "{namespace}"')
    if caller.role != "write":
        raise HubError(403, "Forbidden: you must use a write token")
    return caller


def _require_grant(repository: Repository, caller: Caller | None) -> None:
    settings = repository.settings()
    if settings["gated"] and (caller is None or caller.name not in settings["granted"]):
        kind = repository.kind.removesuffix("s")
        said = f"Access to {kind} {repository.id} is restricted and you are not in the authorized list."
        raise HubError(403 if caller else 401, said, code="GatedRepo")


async def body_of(request: Request, *, limit: int = JSON_BYTES) -> bytes:
    """The whole body. Raises `HubError` 413 beyond the limit."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise HubError(413, f"The body is larger than {limit} bytes")
    return bytes(body)


async def json_of(request: Request) -> dict[str, Any]:
    """The body as a JSON object; an empty body is an empty object."""
    return json_object(await body_of(request) or b"{}")


def json_object(text: bytes) -> dict[str, Any]:
    """One JSON object. Raises `HubError` 400."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise HubError(400, "The body is not valid JSON") from None
    if not isinstance(value, dict):
        raise HubError(400, "The body must be a JSON object")
    return value


async def lines_of(request: Request, *, limit: int) -> AsyncIterator[bytes]:
    """The body line by line, never more than one line of it in memory. Raises `HubError` 413 for a longer line."""
    pending = bytearray()
    async for chunk in request.stream():
        pending += chunk
        if b"\n" in chunk:
            *lines, rest = bytes(pending).split(b"\n")
            pending = bytearray(rest)
            for line in filter(None, lines):
                yield line
        if len(pending) > limit:
            raise HubError(413, "A file is too large to be sent inside a commit: use LFS")
    if pending:
        yield bytes(pending)


def paged(request: Request, rows: list[Item], *, offset: int, more: bool) -> Response:
    """A page of rows, with the address of the next one in the Link header."""
    response = JSONResponse(rows)
    if more:
        following = request.url.include_query_params(cursor=offset + len(rows))
        response.headers["Link"] = f'<{following}>; rel="next"'
    return response


def offset_of(request: Request) -> int:
    """Where this page begins. Raises `HubError` 400 for a cursor that we did not write."""
    cursor = request.query_params.get("cursor", "0")
    if not cursor.isdecimal() or len(cursor) > 9:
        raise HubError(400, f"Invalid cursor: {cursor!r}")
    return int(cursor)
