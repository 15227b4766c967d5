"""Git's object ids, computed without git: blobs, trees, commits, and the pointer files of LFS."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_DIRECTORY = "40000"


@dataclass(frozen=True)
class File:
    """One file of a snapshot. `oid` is the git blob's id: of the content, or of the pointer where LFS holds it."""

    oid: str
    size: int
    sha256: str | None = None


def object_id(kind: str, content: bytes) -> str:
    """Git's id of an object: SHA-1 over `<kind> <length>\\0<content>`."""
    return hashlib.sha1(f"{kind} {len(content)}\0".encode() + content, usedforsecurity=False).hexdigest()


def pointer(*, sha256: str, size: int) -> bytes:
    """The text that stands in git for a file in LFS (git-lfs specification, version 1)."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def lfs_file(*, sha256: str, size: int) -> File:
    """A file of a snapshot whose content is in LFS."""
    return File(oid=object_id("blob", pointer(sha256=sha256, size=size)), size=size, sha256=sha256)


def lfs_fields(file: File, *, oid_name: str) -> dict[str, Any]:
    """The `lfs` part of a file's description in a reply; nothing for a regular file."""
    if file.sha256 is None:
        return {}
    pointer_size = len(pointer(sha256=file.sha256, size=file.size))
    return {"lfs": {oid_name: file.sha256, "size": file.size, "pointerSize": pointer_size}}


def directory_ids(files: Mapping[str, File]) -> dict[str, str]:
    """The id of every directory's git tree; the root's stands under the empty path."""
    children: dict[str, dict[str, tuple[str, str]]] = {"": {}}
    for path, file in files.items():
        directory, _, name = path.rpartition("/")
        children.setdefault(directory, {})[name] = ("100644", file.oid)
        while directory:
            directory = directory.rpartition("/")[0]
            children.setdefault(directory, {})
    ids: dict[str, str] = {}
    # the longest first: a tree's id needs the ids of the trees in it
    for directory in sorted(children, key=len, reverse=True):
        ids[directory] = _tree_id(children[directory])
        if directory:
            above, _, name = directory.rpartition("/")
            children[above][name] = (_DIRECTORY, ids[directory])
    return ids


def _tree_id(children: Mapping[str, tuple[str, str]]) -> str:
    # git sorts directories as if their names ended in a slash, by bytes
    named = {f"{name}/" if row[0] == _DIRECTORY else name: row for name, row in children.items()}
    rows = sorted((name.encode(), row) for name, row in named.items())
    content = [mode.encode() + b" " + name.rstrip(b"/") + b"\0" + bytes.fromhex(oid) for name, (mode, oid) in rows]
    return object_id("tree", b"".join(content))


def commit_text(*, tree: str, parents: list[str], author: str, seconds: int, message: str) -> bytes:
    """The commit object's text, as git writes it."""
    who = f"{author} <{author}@hub.local> {seconds} +0000"
    lines = [f"tree {tree}", *(f"parent {parent}" for parent in parents), f"author {who}", f"committer {who}"]
    return "\n".join([*lines, "", message]).encode()
