"""Routes: before a commit (which files go to LFS) and the commit itself."""

import base64
import binascii
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.local.hub import git, names, wire
from app.local.hub.errors import HubError
from app.local.hub.repository import REGULAR_BYTES, Change, Head, Repository

LINE_BYTES = REGULAR_BYTES * 4 // 3 + 10_000  # a regular file in base64, with its path
MAX_CHANGES = 100_000


async def preupload(request: Request) -> Response:
    """For each file: LFS or regular, and the content's id if the revision has such a file already."""
    repository, _ = await run_in_threadpool(wire.writable, request)
    files = (await wire.json_of(request)).get("files")
    if not isinstance(files, list) or not all(isinstance(file, dict) for file in files):
        raise HubError(400, "files must be a list of objects")
    known = await run_in_threadpool(_known, repository, request.path_params["revision"])
    return JSONResponse({"files": [_mode(file, known=known) for file in files]})


async def commit(request: Request) -> Response:
    """Read the changes line by line, each blob going to disk at once; then apply them all in one step."""
    repository, caller = await run_in_threadpool(wire.writable, request)
    if request.query_params.get("create_pr", "").lower() in {"1", "true"}:
        raise HubError(400, "This Hub has no pull requests: commit to a branch")
    header: dict[str, Any] = {}
    changes: list[Change] = []
    async for line in wire.lines_of(request, limit=LINE_BYTES):
        entry = wire.json_object(line)
        key, value = entry.get("key"), entry.get("value")
        if not isinstance(value, dict) or len(changes) >= MAX_CHANGES:
            raise HubError(400, "Each line of a commit is an operation, and there is a limit to their number")
        if key == "header":
            header = value
        else:
            changes.append(await run_in_threadpool(_change, repository, key, value))
    head = _head(header, branch=request.path_params["revision"], author=caller.name)
    made = await run_in_threadpool(repository.write_commit, changes, head=head)
    place = f"{'' if repository.kind == 'models' else repository.kind + '/'}{repository.id}"
    address = f"{str(request.base_url).rstrip('/')}/{place}/commit/{made.oid}"
    return JSONResponse({"success": True, "commitOid": made.oid, "commitUrl": address, "hookOutput": ""})


def _known(repository: Repository, revision: str) -> dict[str, str]:
    files = repository.files(repository.resolve(revision))
    return {path: file.sha256 or file.oid for path, file in files.items()}


def _mode(file: dict[str, Any], *, known: dict[str, str]) -> dict[str, Any]:
    path = names.require_path(file.get("path"))
    lfs = Repository.wants_lfs(path, size=names.require_size(file.get("size")))
    found = {"path": path, "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False}
    return {**found, "oid": known[path]} if path in known else found


def _head(header: dict[str, Any], *, branch: str, author: str) -> Head:
    title, message, parent = header.get("summary"), header.get("description") or "", header.get("parentCommit")
    if not isinstance(title, str) or not title.strip() or not isinstance(message, str):
        raise HubError(400, "A commit needs a header with a summary")
    if not _is_utf8(title + message):
        raise HubError(400, "A commit's message must be valid Unicode")
    if parent is not None and not (isinstance(parent, str) and names.COMMIT.fullmatch(parent)):
        raise HubError(400, "parentCommit must be a full commit id")
    return Head(branch=branch, parent=parent, title=title, message=message, author=author)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _change(repository: Repository, key: Any, value: dict[str, Any]) -> Change:
    path = value.get("path")
    path = names.require_path(path.removesuffix("/") if isinstance(path, str) else path)
    if key == "file":
        return path, repository.add_blob(_decoded(value))
    if key == "lfsFile":
        return path, _stored(repository, value)
    if key in {"deletedFile", "deletedFolder"}:
        return (path + "/" if key == "deletedFolder" else path), None
    raise HubError(400, f"Unknown operation in a commit: {key!r}")


def _decoded(value: dict[str, Any]) -> bytes:
    content = value.get("content")
    if not isinstance(content, str):
        raise HubError(400, "A file in a commit needs its content")
    try:
        return base64.b64decode(content, validate=True) if value.get("encoding") == "base64" else content.encode()
    except binascii.Error:
        raise HubError(400, "A file's content is not valid base64") from None


def _stored(repository: Repository, value: dict[str, Any]) -> git.File:
    """A file whose content must be in this repository's LFS already; its size is the stored one."""
    oid = names.require_sha256(value.get("oid"))
    content = repository.lfs_path(oid)
    if not content.exists():
        raise HubError(400, f"The LFS object {oid} was not uploaded to {repository.id}")
    return git.lfs_file(sha256=oid, size=content.stat().st_size)


_REPO = "/api/{kind:kind}/{namespace:segment}/{name:segment}"
ROUTES = [
    Route(_REPO + "/preupload/{revision:segment}", preupload, methods=["POST"]),
    Route(_REPO + "/commit/{revision:segment}", commit, methods=["POST"]),
]
