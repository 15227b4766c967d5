"""Everything the Hub knows, in one directory; nothing outside it is ever read or written.

    accounts.json  secret  lock  uploads/            (unfinished LFS uploads)
    repos/<kind>/<namespace>/<name>/                 (see `repository`)

One server at a time; other processes may call `ensure_user` meanwhile.
"""

import secrets
import shutil
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from app.local.hub import disk, names
from app.local.hub.accounts import Accounts, Caller, Role
from app.local.hub.errors import HubError
from app.local.hub.repository import Repository

STALE_SECONDS = 24 * 3600


class HubStore:
    """The Hub's state on disk: accounts and repositories."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.uploads = self.root / "uploads"
        self.lock = disk.Lock(self.root / "lock")
        self.accounts = Accounts(self.root / "accounts.json", lock=self.lock)

    def ensure_user(self, name: str, *, orgs: Sequence[str] = ()) -> str:
        """The user's write token: the same one each time. The user may write to `orgs` as well."""
        return self.accounts.ensure_user(name, orgs=orgs)

    def add_token(self, name: str, *, role: Role = "read") -> str:
        """A further token of an existing user. Raises `KeyError` where there is no such user."""
        return self.accounts.add_token(name, role=role)

    def revoke_token(self, token: str) -> None:
        self.accounts.revoke_token(token)

    def caller(self, token: str) -> Caller | None:
        return self.accounts.caller(token)

    @cached_property
    def secret(self) -> bytes:
        """The key that upload addresses are signed with; lasting, so that they survive a restart."""
        path = self.root / "secret"
        with self.lock():
            if not path.exists():
                disk.write(path, secrets.token_bytes(32))
        return path.read_bytes()

    def repository(self, kind: str, repo_id: str) -> Repository | None:
        """The repository, if there is one by this name."""
        path = self._path(kind, repo_id)
        if path is None or not (path / "refs.json").exists():
            return None
        return Repository(path, kind=kind, repo_id=repo_id, lock=self.lock)

    def create_repository(self, kind: str, repo_id: str, *, private: bool, user: str) -> Repository:
        """A new repository with its first commit. Raises `HubError` 409 where the name is taken."""
        path = self._path(kind, repo_id)
        if path is None:
            raise HubError(400, f"Invalid repository name: {repo_id!r}")
        with self.lock():
            if (path / "refs.json").exists():
                raise HubError(409, f"You already created this {kind.removesuffix('s')} repo")
            shutil.rmtree(path, ignore_errors=True)  # what a crash left of an unfinished creation
            repository = Repository(path, kind=kind, repo_id=repo_id, lock=self.lock)
            repository.initialise(private=private, user=user)
        return repository

    def delete_repository(self, repository: Repository) -> None:
        """Gone at once for every reader, then removed from disk."""
        grave = self.uploads / f"deleted-{secrets.token_hex(8)}"
        grave.parent.mkdir(parents=True, exist_ok=True)
        with self.lock():
            repository.path.rename(grave)
        shutil.rmtree(grave)

    def sweep(self) -> None:
        """Remove what uploads and deletions that nobody finished have left."""
        for path in self.uploads.glob("*"):
            if path.name.startswith("deleted-"):
                shutil.rmtree(path, ignore_errors=True)
            elif time.time() - path.stat().st_mtime > STALE_SECONDS:
                path.unlink(missing_ok=True)

    def _path(self, kind: str, repo_id: str) -> Path | None:
        namespace, _, name = repo_id.partition("/")
        if kind not in names.KINDS or not names.is_name(namespace) or not names.is_name(name):
            return None
        return self.root / "repos" / kind / namespace / name
