"""One commit, checked and laid out before anything is decided: its request is sent as it is, or not at all."""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.errors import Code, SpearError
from app.hub.blobs import Hasher
from app.hub.client import CommitOperationAdd, Hub
from app.hub.commits import MANIFEST, SIGNATURE, TRAILER, WEIGHTS, files_at
from app.recipes import Target

CARD = "README.md"


@dataclass(frozen=True)
class Parcel:
    """A commit on top of `parent`. `body` is the whole request; `digests` are those that each file may have there."""

    parent: str
    body: bytes
    digests: Mapping[str, frozenset[str]]
    manifest_sha256: str


def pack(
    hub: Hub, target: Target, additions: Sequence[CommitOperationAdd], *,
    parent: str, job_id: str, title: str, manifest_sha256: str,
) -> Parcel:  # fmt: skip
    """The uploaded files in, weights and indexes of before out, the job in the message's last line.

    `manifest_sha256` is the digest of the manifest as it was written; every other file has to be what that manifest
    lists, for a worker that lost its lease may have written here since. Raises `VERIFICATION_FAILED` naming the file;
    `HUB_REFUSED` where the Hub would not take the model card; and what the Hub has against listing the target.
    """
    contents = {addition.path_in_repo: _read(addition) for addition in additions if _is_small(addition)}
    measured = {addition.path_in_repo: _measure(addition, contents) for addition in additions}
    manifest = contents.get(MANIFEST) or b"".join(_read(a) for a in additions if a.path_in_repo == MANIFEST)
    _check(target, measured, manifest, manifest_sha256=manifest_sha256)
    if CARD in contents:
        hub.validate_card(target.repo, contents[CARD].decode())
    there = [file.path for file in files_at(hub, target, parent)]
    stale = [path for path in there if path.endswith(WEIGHTS) and path not in measured]
    header = {"summary": title, "description": f"{TRAILER}: {job_id} {manifest_sha256}", "parentCommit": parent}
    lines = [{"key": "header", "value": header}, *_lines(measured, contents, stale)]
    return Parcel(
        parent=parent, body=b"".join(json.dumps(line).encode() + b"\n" for line in lines),
        digests={path: _digests(sha256, contents.get(path)) for path, (_, sha256) in measured.items()},
        manifest_sha256=manifest_sha256,
    )  # fmt: skip


def _lines(
    measured: Mapping[str, tuple[int, str]], contents: Mapping[str, bytes], stale: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """The operations as the Hub's commit endpoint takes them: one JSON object a line."""
    for path, (size, sha256) in measured.items():
        if path in contents:
            content = base64.b64encode(contents[path]).decode()
            yield {"key": "file", "value": {"content": content, "path": path, "encoding": "base64"}}
        else:
            yield {"key": "lfsFile", "value": {"path": path, "algo": "sha256", "oid": sha256, "size": size}}
    for path in stale:
        yield {"key": "deletedFile", "value": {"path": path}}


def _check(
    target: Target, measured: Mapping[str, tuple[int, str]], manifest: bytes, *, manifest_sha256: str
) -> None:
    if hashlib.sha256(manifest).hexdigest() != manifest_sha256:
        raise _spoilt(target, MANIFEST)
    outputs = json.loads(manifest)["outputs"]
    listed = {path: (output["bytes"], output["sha256"]) for path, output in outputs.items()}
    listed[MANIFEST] = (len(manifest), manifest_sha256)
    if SIGNATURE in measured:  # it is made of the manifest, so the manifest cannot list it
        listed[SIGNATURE] = measured[SIGNATURE]
    for path in sorted({*listed, *measured}):
        if listed.get(path) != measured.get(path):
            raise _spoilt(target, path)


def _is_small(addition: CommitOperationAdd) -> bool:
    """Whether the Hub, when it was asked at the upload, wanted the file's content in the commit itself."""
    return addition._upload_mode == "regular"  # noqa: SLF001 - the client tells it nowhere else


def _read(addition: CommitOperationAdd) -> bytes:
    with addition.as_file() as file:
        return file.read()


def _measure(addition: CommitOperationAdd, contents: Mapping[str, bytes]) -> tuple[int, str]:
    """Bytes and SHA-256 of what is sent: of the content in the commit, or of what was uploaded before."""
    content = contents.get(addition.path_in_repo)
    if content is None:
        return addition.upload_info.size, addition.upload_info.sha256.hex()
    return len(content), hashlib.sha256(content).hexdigest()


def _digests(sha256: str, content: bytes | None) -> frozenset[str]:
    """How the Hub may name the content: small files go by git's oid, large ones by SHA-256."""
    if content is None:
        return frozenset({f"sha256:{sha256}"})
    hasher = Hasher(f"git:{'0' * 40}", size=len(content))
    hasher.update(content)
    return frozenset({f"sha256:{sha256}", hasher.digest})


def _spoilt(target: Target, file: str) -> SpearError:
    return SpearError(
        Code.VERIFICATION_FAILED, f"{file} is not the file that {MANIFEST} lists; nothing of it was published",
        repo=target.repo, file=file,
    )  # fmt: skip
