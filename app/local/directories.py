"""Directories of the embedded servers: who holds one, and where its sockets live."""

import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
import time
from pathlib import Path

from app.errors import Code, SpearError

SOCKET_LIMIT = 100  # bytes; the kernel's is 108, less the longest file name that a server adds within our directory
PATIENCE_SECONDS = 5.0  # a server whose owner was killed needs a moment to shut down


def lock(path: Path, *, what: str, patience: float = PATIENCE_SECONDS) -> int:
    """Hold a directory; returns its file descriptor, which is the lock.

    The lock belongs to the open file, so a child that inherits the descriptor keeps it held. Servers do: the directory
    stays locked until their last process is gone, even when the process that started them was killed.

    Raises `SpearError` (not_ready) when another process holds the directory.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    deadline = time.monotonic() + patience
    while not _try_lock(descriptor):
        if time.monotonic() >= deadline:
            os.close(descriptor)
            raise SpearError(Code.NOT_READY, f"{path} is in use by another {what}", directory=str(path))
        time.sleep(0.02)
    return descriptor


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def socket_directory(data_dir: Path, *, reserve: int = 0) -> Path:
    """A private directory with a short path for the sockets of the server in `data_dir`: the same at every start.

    Its parent is open to this user only. `reserve` is the length in bytes of the longest name put inside.
    """
    name = f"spear-{os.getuid()}-{hashlib.sha256(os.fsencode(data_dir.resolve())).hexdigest()[:12]}"
    for root in (Path(tempfile.gettempdir()), Path("/tmp")):  # noqa: S108  (short, and what we make in it is private)
        if len(os.fsencode(root / name)) + reserve < SOCKET_LIMIT:
            make_private(root / name)
            inner = root / name / "s"
            inner.mkdir(mode=0o700, exist_ok=True)
            return inner
    raise SpearError(Code.NOT_READY, f"the temporary directory's path is too long for sockets: {tempfile.gettempdir()}")


def remove_socket_directory(path: Path) -> None:
    """Remove what `socket_directory` made."""
    shutil.rmtree(path.parent, ignore_errors=True)


def make_private(path: Path, *, mode: int = 0o700) -> None:
    """Make a directory of ours in a place where others may write.

    Raises `SpearError` (not_ready) when the name is taken by somebody else's directory or a link.
    """
    path.mkdir(mode=mode, parents=True, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise SpearError(Code.NOT_READY, f"{path} belongs to another user", directory=str(path))
    path.chmod(mode)


def is_open_to_all(path: Path) -> bool:
    """Whether any user can read `path`: it is readable itself and all the directories above can be passed."""
    wanted = stat.S_IROTH | stat.S_IXOTH
    resolved = path.resolve()
    passable = all(parent.stat().st_mode & stat.S_IXOTH for parent in resolved.parents)
    return passable and resolved.stat().st_mode & wanted == wanted
