"""What may be called what: repositories, branches and tags, paths in a repository, object ids.

Repository names become directories here, and a client writes the paths under its own cache: both are strict.
"""

import re

from app.local.hub.errors import HubError

KINDS = ("models", "datasets")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
_REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/-]{0,199}")
_UNFIT = re.compile(r"[\x00-\x1f\x7f\\\ud800-\udfff]")  # control letters, backslash, halves of a surrogate pair
MAX_SIZE = 2**50
COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")


def is_name(name: str) -> bool:
    """Whether a user, organisation or repository may have this name (the client's own rule)."""
    return bool(_NAME.fullmatch(name)) and ".." not in name and "--" not in name and not name.endswith(".git")


def require_name(name: object) -> str:
    """The name of a user, organisation or repository. Raises `HubError` 400."""
    if isinstance(name, str) and is_name(name):
        return name
    raise HubError(400, f"Invalid name: {name!r}")


def require_ref(name: object) -> str:
    """A branch's or tag's name; one that looks like a commit would hide that commit."""
    if isinstance(name, str) and _REF.fullmatch(name) and not COMMIT.fullmatch(name) and _clean_ref(name):
        return name
    raise HubError(400, f"Invalid reference name: {name!r}")


def _clean_ref(name: str) -> bool:
    parts = name.split("/")
    return ".." not in name and all(
        part and not part.startswith(".") and not part.endswith((".", ".lock")) for part in parts
    )


def require_path(path: object) -> str:
    """A file's path in a repository: relative, of plain segments, none of them `.git`."""
    if isinstance(path, str) and path and len(path) <= 1000 and not _UNFIT.search(path):
        parts = path.split("/")
        if all(part not in {"", ".", ".."} and part.lower() != ".git" and len(part) <= 255 for part in parts):
            return path
    raise HubError(400, f"Invalid path in a repository: {path!r}")


def require_sha256(oid: object) -> str:
    """An LFS object's id. Raises `HubError` 400."""
    if isinstance(oid, str) and SHA256.fullmatch(oid):
        return oid
    raise HubError(400, f"Invalid LFS object id: {oid!r}")


def require_size(size: object) -> int:
    """A number of bytes. Raises `HubError` 400."""
    if isinstance(size, int) and not isinstance(size, bool) and 0 <= size <= MAX_SIZE:
        return size
    raise HubError(400, f"Invalid size: {size!r}")
