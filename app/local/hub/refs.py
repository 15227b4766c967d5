"""Routes: branches, tags and the history."""

import itertools
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.local.hub import wire
from app.local.hub.errors import HubError
from app.local.hub.repository import Commit


def refs(request: Request) -> Response:
    """All branches and tags."""
    known = wire.readable(request).refs()
    listed: dict[str, Any] = {"branches": _listed(known, "branches", "heads"), "tags": _listed(known, "tags", "tags")}
    if "include_prs" in request.query_params:
        listed["pullRequests"] = []
    return JSONResponse({**listed, "converts": []})


def commits(request: Request) -> Response:
    """The history of a revision, newest first, page by page."""
    repository = wire.readable(request)
    history = repository.history(repository.resolve(request.path_params["revision"]))
    start, size = wire.offset_of(request), wire.page_size_of(request)
    rows = [_described(commit) for commit in itertools.islice(history, start, start + size)]
    return wire.paged(request, rows, offset=start, more=next(history, None) is not None)


async def create_branch(request: Request) -> Response:
    """A branch at `startingPoint`, else at the head of `main`."""
    body = await wire.json_of(request)
    return await run_in_threadpool(
        _add, request, "branches", request.path_params["branch"], at=str(body.get("startingPoint") or "main")
    )


async def create_tag(request: Request) -> Response:
    """A tag at the revision of the address."""
    body = await wire.json_of(request)
    return await run_in_threadpool(_add, request, "tags", body.get("tag"), at=request.path_params["revision"])


def delete_branch(request: Request) -> Response:
    """Any branch but `main`."""
    branch = request.path_params["branch"]
    repository, _ = wire.writable(request)
    if branch == "main":
        raise HubError(400, "The branch main cannot be deleted")
    repository.remove_ref("branches", branch)
    return JSONResponse({})


def delete_tag(request: Request) -> Response:
    """The tag alone; what it named stays."""
    repository, _ = wire.writable(request)
    repository.remove_ref("tags", request.path_params["revision"])
    return JSONResponse({})


def _add(request: Request, group: str, name: Any, *, at: str) -> Response:
    repository, _ = wire.writable(request)
    repository.add_ref(group, name, commit=repository.resolve(at))
    return JSONResponse({})


def _listed(known: dict[str, dict[str, str]], group: str, prefix: str) -> list[dict[str, str]]:
    rows = sorted(known[group].items())
    return [{"name": name, "ref": f"refs/{prefix}/{name}", "targetCommit": commit} for name, commit in rows]


def _described(commit: Commit) -> dict[str, Any]:
    authors = [{"user": commit.author}]
    return {
        "id": commit.oid, "title": commit.title, "message": commit.message, "date": commit.date, "authors": authors,
    }  # fmt: skip


_REPO = "/api/{kind:kind}/{namespace:segment}/{name:segment}"
ROUTES = [
    Route(_REPO + "/refs", refs),
    Route(_REPO + "/commits/{revision:segment}", commits),
    Route(_REPO + "/branch/{branch:segment}", create_branch, methods=["POST"]),
    Route(_REPO + "/branch/{branch:segment}", delete_branch, methods=["DELETE"]),
    Route(_REPO + "/tag/{revision:segment}", create_tag, methods=["POST"]),
    Route(_REPO + "/tag/{revision:segment}", delete_tag, methods=["DELETE"]),
]
