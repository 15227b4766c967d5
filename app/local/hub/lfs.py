"""Routes: LFS uploads. The batch call hands out signed addresses; contents go to disk as they arrive and are hashed."""

import hashlib
import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, BinaryIO

from itsdangerous import BadSignature, URLSafeTimedSerializer
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.local.hub import disk, names, wire
from app.local.hub.errors import HubError, repo_not_found
from app.local.hub.repository import Repository

GRANT_SECONDS = 24 * 3600
CHUNK_BYTES = 1024 * 1024
MAX_PARTS = 10_000  # S3's limit, and a bound for the reply's length


async def batch(request: Request) -> Response:
    """Where each object is to be uploaded; no actions for one that the repository has."""
    repository, _ = await run_in_threadpool(wire.writable, request)
    body = await wire.json_of(request)
    objects = body.get("objects")
    if body.get("operation") != "upload" or not isinstance(objects, list):
        raise HubError(400, "Only LFS uploads are offered here; files are read under /resolve/")
    multipart = "multipart" in (body.get("transfers") or [])
    rows = [await run_in_threadpool(_offer, request, repository, row, multipart=multipart) for row in objects]
    return JSONResponse({"transfer": "multipart" if multipart else "basic", "objects": rows})


async def upload(request: Request) -> Response:
    """A whole object in one body."""
    grant = _granted(request, "upload")
    repository = await run_in_threadpool(_repository, request, grant)
    draft = wire.store_of(request).uploads / f"{secrets.token_hex(16)}.lfs"
    try:
        digest = await _receive(request, draft, offset=0, size=grant["size"])
        await run_in_threadpool(_keep, repository, draft, digest=digest, oid=grant["oid"])
    finally:
        draft.unlink(missing_ok=True)
    return Response()


async def upload_part(request: Request) -> Response:
    """One part of an object, written straight to its place."""
    grant = _granted(request, "part")
    await run_in_threadpool(_repository, request, grant)
    offset = (grant["part"] - 1) * grant["part_bytes"]
    size = min(grant["part_bytes"], grant["size"] - offset)
    digest = await _receive(request, _draft(request, grant), offset=offset, size=size)
    return Response(headers={"ETag": f'"{digest}"'})


async def complete(request: Request) -> Response:
    """All parts are there: hash the whole. Repeating the call after a lost reply does no harm."""
    grant = _granted(request, "complete")
    repository = await run_in_threadpool(_repository, request, grant)
    if not repository.lfs_path(grant["oid"]).exists():
        await run_in_threadpool(_assemble, repository, _draft(request, grant), grant)
    return JSONResponse({})


async def verify(request: Request) -> Response:
    """The client's last question: is it there, and of the right size?"""
    grant = _granted(request, "verify")
    repository = await run_in_threadpool(_repository, request, grant)
    body = await wire.json_of(request)
    path = repository.lfs_path(names.require_sha256(body.get("oid")))
    if not path.exists() or path.stat().st_size != body.get("size"):
        raise HubError(404, "The LFS object was not uploaded")
    return JSONResponse({})


def _offer(request: Request, repository: Repository, row: Any, *, multipart: bool) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise HubError(400, "objects must be a list of objects")
    oid, size = names.require_sha256(row.get("oid")), names.require_size(row.get("size"))
    path = repository.lfs_path(oid)
    if path.exists() and path.stat().st_size == size:
        return {"oid": oid, "size": size}
    grant = {"kind": repository.kind, "repo": repository.id, "oid": oid, "size": size}
    in_parts = multipart and size > request.app.state.multipart_bytes
    sent = _parts(request, grant) if in_parts else {"href": _address(request, "upload", grant)}
    actions = {"upload": sent, "verify": {"href": _address(request, "verify", grant)}}
    return {"oid": oid, "size": size, "actions": actions}


def _parts(request: Request, grant: dict[str, Any]) -> dict[str, Any]:
    part_bytes = max(request.app.state.part_bytes, -(-grant["size"] // MAX_PARTS))
    shared = {**grant, "upload": secrets.token_hex(16), "part_bytes": part_bytes}
    count = -(-grant["size"] // part_bytes)
    header = {str(part): _address(request, "part", {**shared, "part": part}) for part in range(1, count + 1)}
    return {"href": _address(request, "complete", shared), "header": {"chunk_size": str(part_bytes), **header}}


def _signer(request: Request, action: str) -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(wire.store_of(request).secret, salt=f"lfs {action}")


def _address(request: Request, action: str, grant: dict[str, Any]) -> str:
    signed = _signer(request, action).dumps(grant)
    return f"{str(request.base_url).rstrip('/')}/_lfs/{action}?grant={signed}"


def _granted(request: Request, action: str) -> dict[str, Any]:
    """What the signed address allows. Raises `HubError` 403 for a forged or old one."""
    try:
        grant: dict[str, Any] = _signer(request, action).loads(
            request.query_params.get("grant", ""), max_age=GRANT_SECONDS
        )
    except BadSignature:
        raise HubError(403, "The upload address is not valid any more") from None
    return grant


def _repository(request: Request, grant: dict[str, Any]) -> Repository:
    repository = wire.store_of(request).repository(grant["kind"], grant["repo"])
    if repository is None:
        raise repo_not_found()
    return repository


def _draft(request: Request, grant: dict[str, Any]) -> Path:
    return wire.store_of(request).uploads / f"{grant['upload']}.lfs"


async def _receive(request: Request, path: Path, *, offset: int, size: int) -> str:
    """Write the body at an offset, a chunk at a time; gives its SHA-256. Raises `HubError` 400 for another size."""
    digest, received = hashlib.sha256(), 0
    stream = await run_in_threadpool(_open, path, offset)
    try:
        async for chunk in _chunks(request):
            received += len(chunk)
            if received > size:
                break
            await run_in_threadpool(_take, stream, chunk, digest)
        await run_in_threadpool(_sync, stream)
    finally:
        stream.close()
    if received != size:
        raise HubError(400, f"The upload has {received} bytes instead of {size}")
    return digest.hexdigest()


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    """The body in pieces worth a thread's switch."""
    pending = bytearray()
    async for chunk in request.stream():
        pending += chunk
        if len(pending) >= CHUNK_BYTES:
            yield bytes(pending)
            pending.clear()
    if pending:
        yield bytes(pending)


def _open(path: Path, offset: int) -> BinaryIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
    stream.seek(offset)
    return stream


def _take(stream: BinaryIO, chunk: bytes, digest: "hashlib._Hash") -> None:
    stream.write(chunk)
    digest.update(chunk)


def _sync(stream: BinaryIO) -> None:
    stream.flush()
    os.fsync(stream.fileno())


def _assemble(repository: Repository, draft: Path, grant: dict[str, Any]) -> None:
    if not draft.exists() or draft.stat().st_size != grant["size"]:
        raise HubError(400, "Some parts of the upload are missing")
    with draft.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    try:
        _keep(repository, draft, digest=digest, oid=grant["oid"])
    finally:
        draft.unlink(missing_ok=True)


def _keep(repository: Repository, draft: Path, *, digest: str, oid: str) -> None:
    if digest != oid:
        raise HubError(400, f"The upload's SHA-256 is {digest} instead of {oid}")
    disk.publish(draft, repository.lfs_path(oid))


_BATCH = "/{namespace:segment}/{name:segment}.git/info/lfs/objects/batch"
ROUTES = [
    Route("/{kind:kind}" + _BATCH, batch, methods=["POST"]),
    Route(_BATCH, batch, methods=["POST"]),
    Route("/_lfs/upload", upload, methods=["PUT"]),
    Route("/_lfs/part", upload_part, methods=["PUT"]),
    Route("/_lfs/complete", complete, methods=["POST"]),
    Route("/_lfs/verify", verify, methods=["POST"]),
]
