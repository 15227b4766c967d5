"""Files that are either whole or absent: written beside, made durable, then renamed."""

import json
import os
import secrets
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from filelock import FileLock


def publish(draft: Path, path: Path) -> None:
    """Give a finished, synced draft its name and make the name durable."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def write(path: Path, content: bytes) -> None:
    """Write a private file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name[:40]}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    publish(draft, path)


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, atomically."""
    write(path, json.dumps(value, separators=(",", ":"), sort_keys=True).encode())


def read_json(path: Path) -> Any:
    """The value in a file of JSON."""
    return json.loads(path.read_bytes())


class Lock:
    """Opens the store's one write lock; a fresh handle each time, so that threads exclude each other as well."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self) -> AbstractContextManager[Any]:
        return FileLock(self._path, poll_interval=0.005)
