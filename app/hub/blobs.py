"""The content-addressed cache of downloaded files: `<root>/blobs/<algorithm>/<hex>`, shared by all jobs.

A file gets its name only when its digest was checked. Jobs take hard links, so evicting never takes a file away.
"""

import errno
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from app.errors import Code, SpearError

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|git:[0-9a-f]{40}")
_FICLONE = 0x40049409
_POLL_SECONDS = 0.1
NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})


class BlobCache:
    """The cache under `root`, kept at about `max_bytes` by giving up what was not used for longest."""

    def __init__(self, root: Path, *, max_bytes: int) -> None:
        self.root = root
        self.max_bytes = max_bytes
        for folder in ("blobs/sha256", "blobs/git", "parts", "locks"):
            (root / folder).mkdir(parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        """Where the blob is or would be."""
        algorithm, number = _split(digest)
        return self.root / "blobs" / algorithm / number

    def part(self, digest: str) -> Path:
        """Where an unfinished download of it grows."""
        return self.root / "parts" / "-".join(_split(digest))

    def has(self, digest: str, *, size: int) -> bool:
        try:
            return self.path(digest).stat().st_size == size
        except FileNotFoundError:
            return False

    @contextmanager
    def lock(self, digest: str, *, checkpoint: Callable[[], None]) -> Iterator[None]:
        """Only one process at a time works on a blob; `checkpoint` is called while waiting, and may raise."""
        lock = self._lock(digest)
        while True:
            checkpoint()
            with suppress(Timeout):
                lock.acquire(timeout=_POLL_SECONDS)
                break
        try:
            yield
        finally:
            lock.release()

    def keep(self, digest: str) -> None:
        """Gives a verified part its name. The file is read-only from then on: jobs share its bytes.

        They are on the disk before it has the name: after a power failure nobody takes a file of zeros for it.
        """
        part = self.part(digest)
        with part.open("rb") as stream:
            os.fsync(stream.fileno())
        part.chmod(0o444)
        part.replace(self.path(digest))

    def link(self, digest: str, target: Path) -> None:
        """Puts the blob at `target`: a hard link, a reflink or, on another file system, a copy; marks it as used."""
        blob = self.path(digest)
        os.utime(blob)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        try:
            os.link(blob, target)
        except OSError as error:
            if error.errno not in {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP}:
                raise
            _copy(blob, target)

    def trim(self, *, room: int = 0, keep: Collection[str] = ()) -> int:
        """Gives up files until the cache has `room` bytes below its limit; returns the bytes freed."""
        held = sum(stat.st_size for _, _, stat in self._entries())
        return self.release(held + room - self.max_bytes, keep=keep)

    def release(self, wanted: int, *, keep: Collection[str] = ()) -> int:
        """Gives up the blobs and parts longest unused until `wanted` bytes are freed; returns how many were.

        Not those in `keep`, nor those that a job has linked: nothing would be freed.
        """
        freed = 0
        for path, digest, stat in sorted(self._entries(), key=lambda entry: entry[2].st_mtime_ns):
            if freed >= wanted:
                break
            if stat.st_nlink == 1 and digest not in keep and self._drop(path, digest):
                freed += stat.st_size
        return freed

    def _drop(self, path: Path, digest: str) -> bool:
        """Removes a file unless somebody is at work on it or has just linked it."""
        try:
            with self._lock(digest).acquire(timeout=0):
                if path.stat().st_nlink > 1:
                    return False
                path.unlink()
        except (Timeout, FileNotFoundError):
            return False
        return True

    def _entries(self) -> Iterator[tuple[Path, str, os.stat_result]]:
        """Every blob, and every part that some job has left."""
        blobs = ((path, f"{path.parent.name}:{path.name}") for path in (self.root / "blobs").glob("*/*"))
        parts = ((path, path.name.replace("-", ":", 1)) for path in (self.root / "parts").glob("*"))
        for path, digest in chain(blobs, parts):
            with suppress(FileNotFoundError):
                yield path, digest, path.stat()

    def _lock(self, digest: str) -> FileLock:
        # not shared between threads by thread-local state: each call has a lock of its own, as each process would
        return FileLock(self.root / "locks" / "-".join(_split(digest)), thread_local=False)


class Hasher:
    """Digests bytes as a pin names them: plain SHA-256, or git's blob oid (SHA-1 over `blob <size>\\0` and the bytes).

    Source of the latter: git-hash-object(1).
    """

    def __init__(self, digest: str, *, size: int) -> None:
        self.algorithm, _ = _split(digest)
        if self.algorithm == "git":
            self._hash: Any = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
        else:
            self._hash = hashlib.sha256()

    def update(self, data: bytes) -> None:
        self._hash.update(data)

    @property
    def digest(self) -> str:
        return f"{self.algorithm}:{self._hash.hexdigest()}"


def digest_file(path: Path, like: str) -> str:
    """The digest of a file, by the algorithm of `like`."""
    hasher = Hasher(like, size=path.stat().st_size)
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            hasher.update(chunk)
    return hasher.digest


@contextmanager
def disk_errors(place: Path) -> Iterator[None]:
    """Turns a full disk into `SpearError(DISK_FULL)`."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        free = shutil.disk_usage(place).free
        raise SpearError(Code.DISK_FULL, f"the disk of the worker is full; {free} bytes are left", free=free) from None


def _split(digest: str) -> tuple[str, str]:
    if not _DIGEST.fullmatch(digest):
        raise SpearError(Code.HUB_REFUSED, f"not a digest: {digest[:100]!r}")
    algorithm, _, number = digest.partition(":")
    return algorithm, number


def _copy(source: Path, target: Path) -> None:
    try:
        with source.open("rb") as reading, target.open("xb") as writing:
            try:
                fcntl.ioctl(writing, _FICLONE, reading.fileno())
            except OSError:
                shutil.copyfileobj(reading, writing, 1 << 22)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
