"""A repository nailed to one commit, with every file's size and digest."""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from app.errors import Code, SpearError
from app.hub.client import COMMIT, Hub

if TYPE_CHECKING:  # `app.hub.client` alone imports the client, after setting its environment
    from huggingface_hub import DatasetInfo, ModelInfo
    from huggingface_hub.hf_api import RepoSibling

_OID = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_PATH = 1_000


@dataclass(frozen=True)
class RemoteFile:
    """A file at a pinned commit. `digest` is `sha256:<hex>` of an LFS file, `git:<oid>` (blob) of any other."""

    path: str
    size: int
    digest: str


@dataclass(frozen=True)
class Pin:
    """A repository at one commit; `revision` is what was asked for, `commit` the 40 hex digits it meant then."""

    repo: str
    revision: str
    commit: str
    private: bool
    gated: bool
    license: str | None
    files: tuple[RemoteFile, ...]

    def file(self, path: str) -> RemoteFile | None:
        return next((file for file in self.files if file.path == path), None)


def pin(hub: Hub, repo: str, revision: str, *, max_files: int = 2_000, max_total_bytes: int = 4 * 10**12) -> Pin:
    """The repository at the commit that `revision` means now.

    Raises `REPO_NOT_FOUND`, `REVISION_NOT_FOUND`, `LIMIT_EXCEEDED` and whatever else the Hub answers.
    """
    info = hub.info(repo, revision)
    siblings = info.siblings or []
    if len(siblings) > max_files:
        raise SpearError(Code.LIMIT_EXCEEDED, f"{repo} has {len(siblings)} files; {max_files} are allowed", repo=repo)
    files = tuple(_remote(sibling, repo=repo) for sibling in siblings)
    total = sum(file.size for file in files)
    if total > max_total_bytes:
        raise SpearError(Code.LIMIT_EXCEEDED, f"{repo} has {total} bytes; {max_total_bytes} are allowed", repo=repo)
    return Pin(
        repo=repo,
        revision=revision,
        commit=_commit(info, repo=repo),
        private=bool(info.private),
        gated=bool(info.gated),
        license=_license(info),
        files=files,
    )


def safe_path(path: str) -> bool:
    """Whether this stays inside a directory it is put under, on any platform."""
    parts = path.split("/")
    return (
        0 < len(path) <= _MAX_PATH
        and path.isprintable()
        and not any(part in {"", ".", ".."} for part in parts)
        and not set(path) & set('\\:*?"<>|')
        and not PurePosixPath(path).is_absolute()
    )


def _remote(sibling: "RepoSibling", *, repo: str) -> RemoteFile:
    path = sibling.rfilename
    if not safe_path(path):
        raise SpearError(Code.HUB_REFUSED, f"{repo} has a file with an unsafe name: {path[:200]!r}", repo=repo)
    size: int | None
    if sibling.lfs is not None:
        size, digest, pattern = sibling.lfs.size, f"sha256:{sibling.lfs.sha256}", _SHA256
    else:
        size, digest, pattern = sibling.size, f"git:{sibling.blob_id}", _OID
    if not isinstance(size, int) or size < 0 or not pattern.fullmatch(digest.partition(":")[2]):
        raise SpearError(Code.HUB_UNAVAILABLE, f"the Hub gives no size and digest for {path} in {repo}", repo=repo)
    return RemoteFile(path, size, digest)


def _commit(info: "ModelInfo | DatasetInfo", *, repo: str) -> str:
    if not info.sha or not COMMIT.fullmatch(info.sha):
        raise SpearError(Code.HUB_UNAVAILABLE, f"the Hub gives no commit for {repo}", repo=repo)
    return info.sha


def _license(info: "ModelInfo | DatasetInfo") -> str | None:
    """From the model card, else from the tags that the Hub makes of it."""
    named = getattr(info.card_data, "license", None)
    if isinstance(named, str):
        return named
    tags = (tag.removeprefix("license:") for tag in info.tags or [] if tag.startswith("license:"))
    return next(tags, None)
