"""Routes: who am I, create and delete repositories, their settings, access, information."""

from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.local.hub import card, names, wire
from app.local.hub.accounts import Caller
from app.local.hub.errors import HubError, repo_not_found, unknown_caller
from app.local.hub.git import File, lfs_fields


def whoami(request: Request) -> Response:
    """The user behind the token."""
    caller = wire.caller_of(request)
    if caller is None:
        raise HubError(401, wire.BAD_TOKEN)
    orgs = [{"type": "org", "name": org, "fullname": org, "roleInOrg": "write"} for org in caller.orgs]
    auth = {"type": "access_token", "accessToken": {"displayName": caller.label, "role": caller.role}}
    return JSONResponse({"type": "user", "name": caller.name, "fullname": caller.name, "orgs": orgs, "auth": auth})


async def create(request: Request) -> Response:
    """A new model or dataset repository."""
    body = await wire.json_of(request)
    caller, kind, repo_id = await run_in_threadpool(_named, request, body)
    private = body.get("visibility") == "private" or body.get("private") is True
    store = wire.store_of(request)
    address = f"{str(request.base_url).rstrip('/')}/{'' if kind == 'models' else kind + '/'}{repo_id}"
    said = {"url": address, "name": repo_id, "id": repo_id}
    try:
        await run_in_threadpool(store.create_repository, kind, repo_id, private=private, user=caller.name)
    except HubError as error:
        if error.status != 409:
            raise
        # with exist_ok the client goes on and reads the address from the refusal
        return JSONResponse({**said, "error": error.message}, 409, headers=error.headers)
    return JSONResponse(said)


async def delete(request: Request) -> Response:
    """The repository and all in it."""
    body = await wire.json_of(request)
    _, kind, repo_id = await run_in_threadpool(_named, request, body)
    store = wire.store_of(request)
    repository = await run_in_threadpool(store.repository, kind, repo_id)
    if repository is None:
        raise repo_not_found()
    await run_in_threadpool(store.delete_repository, repository)
    return JSONResponse({})


async def change_settings(request: Request) -> Response:
    """`visibility` or `private`, and `gated`: "auto", "manual" or false."""
    repository, _ = await run_in_threadpool(wire.writable, request)
    body = await wire.json_of(request)
    changes: dict[str, Any] = {}
    if "visibility" in body or "private" in body:
        changes["private"] = body.get("visibility") == "private" or body.get("private") is True
    if "gated" in body:
        if body["gated"] not in {"auto", "manual", False}:
            raise HubError(400, f"Invalid value of gated: {body['gated']!r}")
        changes["gated"] = body["gated"]
    await run_in_threadpool(repository.change_settings, **changes)
    return JSONResponse(changes)


async def grant(request: Request) -> Response:
    """Let a user into a gated repository (`HfApi.grant_access`)."""
    repository, _ = await run_in_threadpool(wire.writable, request)
    user = names.require_name((await wire.json_of(request)).get("user"))
    await run_in_threadpool(repository.grant, user)
    return JSONResponse({})


def auth_check(request: Request) -> Response:
    """Whether the caller may open the files."""
    wire.readable(request, contents=True)
    return JSONResponse({})


def auth_check_write(request: Request) -> Response:
    """Whether the caller may commit."""
    wire.writable(request)
    return JSONResponse({})


def info(request: Request) -> Response:
    """A repository at a revision, `main` where none is named."""
    repository = wire.readable(request)
    commit = repository.resolve(request.path_params.get("revision", "main"))
    blobs = request.query_params.get("blobs", "").lower() in {"1", "true"}
    settings = repository.settings()
    files = repository.files(commit)
    data = card.read(repository, files.get("README.md"))
    found = {
        "_id": repository.id, "id": repository.id, "modelId": repository.id, "author": repository.namespace,
        "sha": commit, "private": settings["private"], "gated": settings["gated"], "disabled": False, "downloads": 0,
        "likes": 0, "createdAt": settings["created"], "lastModified": repository.commit(commit).date,
        "tags": card.tags(data),
        "siblings": [_sibling(path, file, blobs=blobs) for path, file in sorted(files.items())],
        **({"cardData": data} if data else {}),
    }  # fmt: skip
    return JSONResponse(found)


def missing(request: Request) -> Response:
    """Names without a namespace: this Hub has none of them."""
    raise repo_not_found() if wire.caller_of(request) else unknown_caller()


async def validate_card(request: Request) -> Response:
    """Whether a README's front matter is YAML: the client asks before it commits one."""
    content = (await wire.json_of(request)).get("content")
    problem = card.problem(content if isinstance(content, str) else "")
    errors = [{"message": problem}] if problem else []
    return JSONResponse({"errors": errors, "warnings": []}, 400 if errors else 200)


def _named(request: Request, body: dict[str, Any]) -> tuple[Caller, str, str]:
    """Who asks, and the kind and id of the repository that the body names; the caller may write to it."""
    caller = wire.caller_of(request)
    namespace = body.get("organization") or (caller.name if caller else "")
    caller = wire.writer_of(request, namespace=namespace)
    kind = f"{body.get('type') or 'model'}s"
    if kind not in names.KINDS:
        raise HubError(400, f"This Hub holds {' and '.join(names.KINDS)} only, not {kind}")
    return caller, kind, f"{namespace}/{names.require_name(body.get('name'))}"


def _sibling(path: str, file: File, *, blobs: bool) -> dict[str, Any]:
    if not blobs:
        return {"rfilename": path}
    return {"rfilename": path, "size": file.size, "blobId": file.oid, **lfs_fields(file, oid_name="sha256")}


ROUTES = [
    Route("/api/whoami-v2", whoami),
    Route("/api/repos/create", create, methods=["POST"]),
    Route("/api/repos/delete", delete, methods=["DELETE"]),
    Route("/api/validate-yaml", validate_card, methods=["POST"]),
    Route("/api/{kind:kind}/{name:segment}", missing),
    Route("/api/{kind:kind}/{namespace:segment}/{name:segment}", info),
    Route("/api/{kind:kind}/{namespace:segment}/{name:segment}/revision/{revision:segment}", info),
    Route("/api/{kind:kind}/{namespace:segment}/{name:segment}/settings", change_settings, methods=["PUT"]),
    Route("/api/{kind:kind}/{namespace:segment}/{name:segment}/auth-check", auth_check),
    Route("/api/{kind:kind}/{namespace:segment}/{name:segment}/auth-check/write", auth_check_write),
    Route("/api/{kind:kind}/{namespace:segment}/{name:segment}/user-access-request/grant", grant, methods=["POST"]),
]
