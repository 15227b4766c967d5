"""Named Hub credentials: which token reads and which writes, by the name that an API key bears.

The setting `hub_credentials` names a directory with files `NAME.read` and `NAME.write`, or a TOML or JSON file that
maps names to `read_token_file` and `write_token_file`. Files are read anew each time, so that they can be exchanged.
"""

import json
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.errors import Code, SpearError
from app.settings import Settings

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True)
class Credential:
    """The token that reads and the one that publishes; None is nobody in particular."""

    read: str | None = field(repr=False)
    write: str | None = field(repr=False)


def choose(settings: Settings, *, name: str | None = None, token: str | None = None) -> Credential:
    """A caller's own token before a named credential, and that before the service's own.

    Raises `SpearError(not_ready)` where the name is not configured: no other credential is put in its place.
    """
    if token is not None:
        return Credential(token, token)
    if name is None:
        own = settings.hub_token()
        return Credential(own, own)
    found = _files(settings, name)
    if found is None:
        raise SpearError(Code.NOT_READY, f"the Hub credential {name!r} is not configured", credential=name)
    try:
        read, write = (file.read_text().strip() if file else None for file in found)
    except OSError:
        message = f"a token file of the Hub credential {name!r} cannot be read"
        raise SpearError(Code.NOT_READY, message, credential=name) from None
    return Credential(read or write, write)


def is_known(settings: Settings, name: str) -> bool:
    """Whether a credential of this name is configured."""
    return _files(settings, name) is not None


def _files(settings: Settings, name: str) -> tuple[Path | None, Path | None] | None:
    place = settings.hub_credentials
    if place is None or not _NAME.fullmatch(name):
        return None
    if place.is_dir():
        read, write = (file if file.is_file() else None for file in (place / f"{name}.read", place / f"{name}.write"))
        return (read, write) if read or write else None
    entry = _mapping(place).get(name)
    if not isinstance(entry, dict):
        return None
    return _beside(place, entry.get("read_token_file")), _beside(place, entry.get("write_token_file"))


def _mapping(place: Path) -> dict[str, Any]:
    """What the file says. Its words are not repeated in errors: somebody may have put a token into it."""
    try:
        text = place.read_text()
        return dict(json.loads(text) if place.suffix == ".json" else tomllib.loads(text))
    except (OSError, ValueError, TypeError):
        raise SpearError(Code.NOT_READY, "the file of Hub credentials cannot be read") from None


def _beside(place: Path, name: str | None) -> Path | None:
    return (place.parent / name).expanduser() if name else None
