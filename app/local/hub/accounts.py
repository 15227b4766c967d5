"""Users, their organisations and their tokens, in one private file."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from app.local.hub import disk
from app.local.hub.disk import Lock
from app.local.hub.names import require_name

Role = Literal["read", "write"]
_DEFAULT = "default"


@dataclass(frozen=True)
class Caller:
    """Who asks, known by the token."""

    name: str
    orgs: tuple[str, ...]
    role: Role
    label: str

    def belongs_to(self, namespace: str) -> bool:
        return namespace == self.name or namespace in self.orgs


class Accounts:
    """Read anew on each call: another process may have added a user since."""

    def __init__(self, path: Path, *, lock: Lock) -> None:
        self._path = path
        self._lock = lock

    def ensure_user(self, name: str, *, orgs: Sequence[str] = ()) -> str:
        """The user's lasting write token; made, with the user, the first time. Adds the organisations named."""
        require_name(name)
        with self._lock():
            known = self._read()
            user = known["users"].setdefault(name, {"orgs": []})
            user["orgs"] = sorted({*user["orgs"], *map(require_name, orgs)})
            token = self._lasting(known, name) or _issue(known, name, role="write", label=_DEFAULT)
            disk.write_json(self._path, known)
        return token

    def add_token(self, name: str, *, role: Role) -> str:
        """A further token of a known user. Raises `KeyError` for an unknown one."""
        with self._lock():
            known = self._read()
            known["users"][name]
            token = _issue(known, name, role=role, label=role)
            disk.write_json(self._path, known)
        return token

    def revoke_token(self, token: str) -> None:
        with self._lock():
            known = self._read()
            if known["tokens"].pop(token, None):
                disk.write_json(self._path, known)

    def caller(self, token: str) -> Caller | None:
        known = self._read()
        found = known["tokens"].get(token)
        if found is None:
            return None
        user = known["users"][found["user"]]
        return Caller(name=found["user"], orgs=tuple(user["orgs"]), role=found["role"], label=found["label"])

    def _read(self) -> dict[str, Any]:
        known: dict[str, Any] = disk.read_json(self._path) if self._path.exists() else {"users": {}, "tokens": {}}
        return known

    @staticmethod
    def _lasting(known: dict[str, Any], name: str) -> str | None:
        owned = (token for token, of in known["tokens"].items() if of["user"] == name and of["label"] == _DEFAULT)
        return next(owned, None)


def _issue(known: dict[str, Any], name: str, *, role: Role, label: str) -> str:
    token = f"hf_{secrets.token_hex(17)}"
    known["tokens"][token] = {"user": name, "role": role, "label": label}
    return token
