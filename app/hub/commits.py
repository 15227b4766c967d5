"""Commits on a target's branch: what they hold, and how one is known as a job's. `app.hub.publish` drives this."""

import hashlib
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from app.errors import Code, SpearError
from app.hub.client import CommitOperationAdd, Hub
from app.hub.download import Stopped
from app.hub.pins import RemoteFile
from app.recipes import Target

MANIFEST = "merge_manifest.json"
SIGNATURE = f"{MANIFEST}.sig"
TRAILER = "Merge-Job"
WEIGHTS = (
    ".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".gguf", ".onnx", ".msgpack", ".index.json",
    "adapter_config.json",  # left beside a whole model, loaders would take the model for an adapter
    SIGNATURE,  # of another manifest
)  # fmt: skip
"""Weight and index files, by their endings; those that a result does not have are deleted by its commit."""

SMALL_BYTES = 5_000_000
"""Files up to this size are handed to the Hub together, larger ones one by one."""

HISTORY = 1_000
"""Commits looked at for a trailer, from the newest on."""
_MAX_MANIFEST = 256_000_000
_LAST_LINE = re.compile(rf"{TRAILER}: (\S+) ([0-9a-f]{{64}})")


@dataclass(frozen=True)
class Published:
    """The commit on the target that bears the job. `manifest_sha256` is that of the manifest in it."""

    repo: str
    commit: str
    url: str
    manifest_sha256: str


def prepare(hub: Hub, target: Target, *, made: Callable[[str, str], None] = lambda _what, _head: None) -> str:
    """The oid of the target branch's head; repository and branch are created where they are missing.

    `made` is told what was created, "repository" or "branch", and at which head. Nothing of it is ever removed again:
    who asks for a branch's head before he deletes cannot know what somebody else puts there in between, or has put
    there and an older copy of the Hub does not show.
    """
    what = ""
    try:
        branches = hub.branches(target.repo)
    except SpearError as error:
        if error.code is not Code.REPO_NOT_FOUND:
            raise
        # one that is there all the same was hidden by an older copy, or made by somebody else just now
        what = "repository" if hub.create_repo(target.repo, private=target.private) else ""
        branches = _branches(hub, target, wanted="main")
    if target.branch not in branches:
        start = branches.get("main") or next(iter(branches.values()), None)
        if start is None:
            raise SpearError(Code.HUB_REFUSED, f"{target.repo} has no commit to build on", repo=target.repo)
        if hub.create_branch(target.repo, target.branch, start=start):
            what = what or "branch"
        branches = _branches(hub, target, wanted=target.branch)
    if what:
        made(what, branches[target.branch])
    return branches[target.branch]


def find_commit(hub: Hub, target: Target, job_id: str, *, since: str | None = None) -> str | None:
    """The oid of the commit on the target's branch that bears the job, if there is one.

    Commits are looked at from the newest on, down to `since`, which is not looked at.
    """
    found = find(hub, target, job_id, since=since)
    return found[0] if found else None


def find(
    hub: Hub, target: Target, job_id: str, *, since: str | None, at: str | None = None
) -> tuple[str, str] | None:
    """As `find_commit`: oid and manifest digest of the commit whose last line is the job's trailer.

    With `at`, in that commit's own history: the list by the branch's name may be older than the branch's head. Raises
    `HUB_UNAVAILABLE` if the Hub does not know `at` yet.
    """
    for oid, job, manifest_sha256 in trailers(hub, target, at=at):
        if oid == since:
            break
        if job == job_id:
            return oid, manifest_sha256
    return None


def trailers(hub: Hub, target: Target, *, at: str | None = None) -> Iterator[tuple[str, str, str]]:
    """Commits from the newest on, as (oid, job, manifest digest); the last two are empty where no job is borne."""
    try:
        for oid, message in islice(hub.commits(target.repo, at or target.branch), HISTORY):
            last = _LAST_LINE.fullmatch(message.rstrip().rpartition("\n")[2].strip())
            yield oid, last[1] if last else "", last[2] if last else ""
    except SpearError as error:
        if error.code not in {Code.REPO_NOT_FOUND, Code.REVISION_NOT_FOUND}:
            raise
        if at:
            raise SpearError(
                Code.HUB_UNAVAILABLE, f"the Hub does not show commit {at} of {target.repo} yet", repo=target.repo
            ) from None


def head_of(hub: Hub, target: Target) -> str | None:
    """The oid of the target branch's head; None where repository or branch are not there."""
    try:
        return hub.branches(target.repo).get(target.branch)
    except SpearError as error:
        if error.code is not Code.REPO_NOT_FOUND:
            raise
        return None


def upload(
    hub: Hub, target: Target, folder: Path, *, progress: Callable[[int], None], stop: Callable[[], bool]
) -> list[CommitOperationAdd]:
    """Stores every file of the folder at the Hub, without a commit; `progress` gets the bytes stored since last time.

    Can be repeated at will: content that is there already is not sent. Raises `Stopped` between two files and after
    the last one.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    additions = [CommitOperationAdd(path.relative_to(folder).as_posix(), path) for path in paths]
    small = [addition for addition in additions if addition.upload_info.size <= SMALL_BYTES]
    large = [addition for addition in additions if addition.upload_info.size > SMALL_BYTES]
    for batch in (small, *([addition] for addition in large)):
        if stop():
            raise Stopped
        hub.upload(target.repo, target.branch, batch)
        progress(sum(addition.upload_info.size for addition in batch))
    if stop():
        raise Stopped
    return additions


def files_at(hub: Hub, target: Target, oid: str) -> tuple[RemoteFile, ...]:
    """Every file of the target at a commit, under whatever name: none of them becomes a path on this machine."""
    return tuple(
        RemoteFile(file.rfilename, file.size or 0, f"sha256:{file.lfs.sha256}" if file.lfs else f"git:{file.blob_id}")
        for file in hub.info(target.repo, oid).siblings or []
    )


def confirmed(hub: Hub, target: Target, oid: str, manifest_sha256: str) -> Published:
    """The commit, if its manifest is the one that its trailer names."""
    raw = hub.read(target.repo, oid, MANIFEST, size=_MAX_MANIFEST)
    if hashlib.sha256(raw).hexdigest() != manifest_sha256:
        raise unlike(target, MANIFEST, oid=oid)
    return Published(target.repo, oid, f"{hub.endpoint}/{target.repo}/tree/{oid}", manifest_sha256)


def _branches(hub: Hub, target: Target, *, wanted: str) -> dict[str, str]:
    """The branches, once `wanted` is seen among them: what was just created may take a moment to show."""
    for wait in (0.0, 0.2, 0.5, 1.0, 2.0, 4.0):
        time.sleep(wait)
        try:
            branches = hub.branches(target.repo)
        except SpearError as error:
            if error.code is not Code.REPO_NOT_FOUND:  # a copy that lags behind does not know the repository yet
                raise
            continue
        if wanted in branches:
            return branches
    raise SpearError(
        Code.HUB_UNAVAILABLE, f"the Hub does not show branch {wanted} of {target.repo}", repo=target.repo
    )


def unlike(target: Target, file: str, *, oid: str) -> SpearError:
    """The refusal of a commit in which `file` is not as it was published."""
    return SpearError(
        Code.VERIFICATION_FAILED, f"{file} in commit {oid} of {target.repo} is not what was published",
        repo=target.repo, file=file, commit=oid,
    )  # fmt: skip
