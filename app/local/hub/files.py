"""Routes: what is in a snapshot, and the files themselves."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from app.local.hub import git, wire
from app.local.hub.errors import entry_not_found
from app.local.hub.git import File, lfs_fields


class Content(FileResponse):
    """A file in chunks large enough that a thread's switch costs little beside reading one."""

    chunk_size = 1024 * 1024


def resolve(request: Request) -> Response:
    """A file's content, whole or by range. No Xet headers, so the client takes it from here."""
    repository = wire.readable(request, contents=True)
    commit = repository.resolve(request.path_params["revision"])
    path = request.path_params["path"]
    file = repository.files(commit).get(path)
    if file is None:
        raise entry_not_found(path, commit=commit)
    headers = {"X-Repo-Commit": commit, "ETag": f'"{file.sha256 or file.oid}"', "X-Content-Type-Options": "nosniff"}
    if file.sha256:
        headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(file.size)}
    content = repository.content(file)
    return Content(content, headers=headers, media_type="application/octet-stream", stat_result=content.stat())


def tree(request: Request) -> Response:
    """What lies in a directory, page by page; everything below it with `recursive`."""
    repository = wire.readable(request)
    commit = repository.resolve(request.path_params["revision"])
    files = repository.files(commit)
    directory = request.path_params.get("path", "").strip("/")
    prefix = f"{directory}/" if directory else ""
    directories = git.directory_ids(files)
    if directory not in directories:
        raise entry_not_found(directory, commit=commit)
    inside = [path for path in (*files, *directories) if path and path.startswith(prefix)]
    if request.query_params.get("recursive", "").lower() not in {"1", "true"}:
        inside = [path for path in inside if "/" not in path.removeprefix(prefix)]
    start, size = wire.offset_of(request), wire.page_size_of(request)
    page = sorted(inside)[start : start + size]
    rows = [_item(path, files=files, directories=directories) for path in page]
    return wire.paged(request, rows, offset=start, more=start + size < len(inside))


async def paths_info(request: Request) -> Response:
    """What is known of the paths named in the form; those that do not exist are left out."""
    form = parse_qs((await wire.body_of(request)).decode(errors="replace"))
    return await run_in_threadpool(_paths_info, request, form.get("paths", []))


def _paths_info(request: Request, paths: list[str]) -> Response:
    repository = wire.readable(request)
    files = repository.files(repository.resolve(request.path_params["revision"]))
    directories = git.directory_ids(files)
    known = [path for path in paths if path and (path in files or path in directories)]
    return JSONResponse([_item(path, files=files, directories=directories) for path in known])


def _item(path: str, *, files: Mapping[str, File], directories: dict[str, str]) -> dict[str, Any]:
    if path in directories:
        return {"type": "directory", "path": path, "oid": directories[path], "size": 0}
    file = files[path]
    return {"type": "file", "path": path, "oid": file.oid, "size": file.size, **lfs_fields(file, oid_name="oid")}


_REPO = "/api/{kind:kind}/{namespace:segment}/{name:segment}"
ROUTES = [
    Route(_REPO + "/tree/{revision:segment}", tree),
    Route(_REPO + "/tree/{revision:segment}/{path:rest}", tree),
    Route(_REPO + "/paths-info/{revision:segment}", paths_info, methods=["POST"]),
    Route("/{kind:kind}/{namespace:segment}/{name:segment}/resolve/{revision:segment}/{path:rest}", resolve),
    Route("/{namespace:segment}/{name:segment}/resolve/{revision:segment}/{path:rest}", resolve),
]
