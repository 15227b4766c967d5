"""One repository on disk: settings, references, commits, snapshots, blobs and LFS objects.

    settings.json                 private, gated, who is granted access, when made
    refs.json                     branches and tags: the one file whose change is a commit's moment of truth
    commits/<oid>  trees/<oid>    JSON; the ids are git's own
    blobs/<oid>    lfs/<sha256>   contents, as they are
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from app.local.hub import disk, git, names
from app.local.hub.disk import Lock
from app.local.hub.errors import HubError, entry_not_found, repo_not_found, revision_not_found
from app.local.hub.git import File

# what huggingface.co writes into a new model's .gitattributes
LFS_SUFFIXES = (
    *("7z", "arrow", "bin", "bz2", "ckpt", "ftz", "gz", "h5", "joblib", "lfs.*", "mlmodel", "model", "msgpack", "npy"),
    *("npz", "onnx", "ot", "parquet", "pb", "pickle", "pkl", "pt", "pth", "rar", "safetensors", "tar", "tflite", "tgz"),
    *("wasm", "xz", "zip", "zst"),
)
_ATTRIBUTES = "".join(f"*.{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES).encode()
_LFS_NAME = re.compile(r".*\.(" + "|".join(s.replace(".*", r"\..*") for s in LFS_SUFFIXES) + ")|.*tfevents.*")
REGULAR_BYTES = 10 * 1024 * 1024
Change = tuple[str, File | None]
"""(path, file) puts the file there; (path, None) removes the file, or the directory if the path ends in a slash"""


@dataclass(frozen=True)
class Commit:
    """One commit. `message` is what follows the title."""

    oid: str
    tree: str
    parents: list[str]
    title: str
    message: str
    author: str
    date: str


@dataclass(frozen=True)
class Head:
    """Where a commit goes and what it says. `parent`, if given, must be the branch's head."""

    branch: str
    parent: str | None
    title: str
    message: str
    author: str


class Repository:
    """The repository at `path`. Objects are immutable; references change under the store's lock."""

    def __init__(self, path: Path, *, kind: str, repo_id: str, lock: Lock) -> None:
        self.path = path
        self.kind = kind
        self.id = repo_id
        self._lock = lock

    @property
    def namespace(self) -> str:
        return self.id.partition("/")[0]

    def initialise(self, *, private: bool, user: str) -> None:
        """The settings and the first commit; the store's lock is held."""
        disk.write_json(
            self.path / "settings.json", {"private": private, "gated": False, "granted": [], "created": _now()}
        )
        files = {".gitattributes": self.add_blob(_ATTRIBUTES)}
        head = Head(branch="main", parent=None, title="initial commit", message="", author=user)
        commit = self._write_commit(files, head=head, parents=[])
        disk.write_json(self.path / "refs.json", {"branches": {"main": commit.oid}, "tags": {}})

    # settings

    def settings(self) -> dict[str, Any]:
        return self._read("settings.json")

    def change_settings(self, **changes: Any) -> None:
        with self._lock():
            disk.write_json(self.path / "settings.json", {**self.settings(), **changes})

    def grant(self, user: str) -> None:
        """Let a user read this gated repository."""
        with self._lock():
            settings = self.settings()
            granted = sorted({*settings["granted"], user})
            disk.write_json(self.path / "settings.json", {**settings, "granted": granted})

    # reading

    def refs(self) -> dict[str, dict[str, str]]:
        return self._read("refs.json")

    def resolve(self, revision: str) -> str:
        """The commit of a branch, a tag or a 40-hex commit. Raises `HubError` RevisionNotFound."""
        refs = self.refs()
        oid = refs["branches"].get(revision) or refs["tags"].get(revision)
        if oid is None and names.COMMIT.fullmatch(revision) and (self.path / "commits" / revision).exists():
            oid = revision
        if oid is None:
            raise revision_not_found(revision)
        return oid

    def commit(self, oid: str) -> Commit:
        return Commit(**disk.read_json(self.path / "commits" / oid))

    def history(self, oid: str) -> Iterator[Commit]:
        """A commit and its ancestors, newest first."""
        parents = [oid]
        while parents:
            commit = self.commit(parents[0])
            yield commit
            parents = commit.parents

    def files(self, oid: str) -> Mapping[str, File]:
        """The snapshot of a commit, by path."""
        return _snapshot(self.path / "trees" / self.commit(oid).tree)

    def content(self, file: File) -> Path:
        return self.lfs_path(file.sha256) if file.sha256 else self.path / "blobs" / file.oid

    def lfs_path(self, sha256: str) -> Path:
        return self.path / "lfs" / names.require_sha256(sha256)

    # writing

    @staticmethod
    def wants_lfs(path: str, *, size: int) -> bool:
        """Whether the Hub stores such a file in LFS."""
        return size > REGULAR_BYTES or bool(_LFS_NAME.fullmatch(path.rpartition("/")[2]))

    def add_blob(self, content: bytes) -> File:
        file = File(oid=git.object_id("blob", content), size=len(content))
        if not self.content(file).exists():
            disk.write(self.content(file), content)
        return file

    def write_commit(self, changes: Sequence[Change], *, head: Head) -> Commit:
        """Apply changes on top of a branch, all or nothing.

        Raises `HubError` 412 where the parent is no longer the branch's head, 404 for deleting what is not there.
        """
        with self._lock():
            refs = self.refs()
            current = refs["branches"].get(head.branch)
            if current is None:
                raise revision_not_found(head.branch)
            if head.parent not in {None, current}:
                raise HubError(412, "A commit has happened since. Please refresh and try again.")
            files = _apply(changes, to=self.files(current), commit=current)
            commit = self._write_commit(files, head=head, parents=[current])
            refs["branches"][head.branch] = commit.oid
            disk.write_json(self.path / "refs.json", refs)
        return commit

    def add_ref(self, group: str, name: str, *, commit: str) -> None:
        """A new branch (`branches`) or tag (`tags`). Raises `HubError` 409 where it exists."""
        names.require_ref(name)
        with self._lock():
            refs = self.refs()
            if name in refs[group]:
                raise HubError(409, f"Reference already exists: {name}")
            refs[group][name] = commit
            disk.write_json(self.path / "refs.json", refs)

    def remove_ref(self, group: str, name: str) -> None:
        with self._lock():
            refs = self.refs()
            if refs[group].pop(name, None) is None:
                raise revision_not_found(name)
            disk.write_json(self.path / "refs.json", refs)

    def _write_commit(self, files: Mapping[str, File], *, head: Head, parents: list[str]) -> Commit:
        tree = git.directory_ids(files)[""]
        snapshot = {path: [file.oid, file.size, file.sha256] for path, file in files.items()}
        if not (self.path / "trees" / tree).exists():
            disk.write_json(self.path / "trees" / tree, snapshot)
        moment = datetime.now(UTC)
        text = git.commit_text(
            tree=tree, parents=parents, author=head.author, seconds=int(moment.timestamp()),
            message=f"{head.title}\n\n{head.message}",
        )
        commit = Commit(
            oid=git.object_id("commit", text), tree=tree, parents=parents, title=head.title, message=head.message,
            author=head.author, date=_stamp(moment),
        )
        disk.write_json(self.path / "commits" / commit.oid, asdict(commit))
        return commit

    def _read(self, name: str) -> dict[str, Any]:
        try:
            found: dict[str, Any] = disk.read_json(self.path / name)
        except FileNotFoundError:  # deleted by somebody else since it was looked up
            raise repo_not_found() from None
        return found


@lru_cache(maxsize=32)
def _snapshot(path: Path) -> Mapping[str, File]:
    """Named by their content, snapshots never change."""
    return {name: File(oid=oid, size=size, sha256=sha256) for name, (oid, size, sha256) in disk.read_json(path).items()}


def _apply(changes: Sequence[Change], *, to: Mapping[str, File], commit: str) -> dict[str, File]:
    files = dict(to)
    for path, file in changes:
        if file is not None:
            files[path] = file
            continue
        gone = [name for name in files if name == path or (path.endswith("/") and name.startswith(path))]
        if not gone:
            raise entry_not_found(f"A file with this name doesn't exist: {path}", commit=commit)
        for name in gone:
            del files[name]
    _require_tree(files)
    return files


def _require_tree(files: Mapping[str, File]) -> None:
    """No path may be a file and a directory at once."""
    for path in files:
        parts = path.split("/")
        for depth in range(1, len(parts)):
            if "/".join(parts[:depth]) in files:
                raise HubError(400, f"A file stands where {path!r} needs a directory")


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _now() -> str:
    return _stamp(datetime.now(UTC))
