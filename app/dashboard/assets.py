"""The pages' static files, under names that change with their content, so that browsers may keep them for ever."""

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "static"
TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
FOR_EVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True, kw_only=True)
class Asset:
    """One file as it is sent, plain and packed (gzip)."""

    media_type: str
    plain: bytes
    packed: bytes


def asset_url(name: str) -> str:
    """Where the file `name` of the folder is found, for as long as it is what it is now."""
    return f"/static/{_names()[name]}"


def find_asset(name: str) -> Asset | None:
    """The file of a name that `asset_url` gave."""
    return _assets().get(name)


@cache
def _names() -> Mapping[str, str]:
    files = [path for path in sorted(FOLDER.iterdir()) if path.suffix in TYPES]
    return {path.name: f"{path.stem}.{_digest(path.read_bytes())}{path.suffix}" for path in files}


@cache
def _assets() -> Mapping[str, Asset]:
    return {hashed: _read(FOLDER / name) for name, hashed in _names().items()}


def _read(path: Path) -> Asset:
    plain = path.read_bytes()
    return Asset(media_type=TYPES[path.suffix], plain=plain, packed=gzip.compress(plain, 9, mtime=0))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]
