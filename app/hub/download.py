"""Downloading a pinned repository's files into a job's directory, through the shared cache, every byte verified."""

import queue
import shutil
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import httpx2

from app.errors import Code, SpearError
from app.hub.blobs import BlobCache, Hasher, disk_errors
from app.hub.client import Hub
from app.hub.pins import Pin, RemoteFile, safe_path

CHUNK = 1 << 20
POLL_SECONDS = 0.2
SETTLE_SECONDS = 0.5
FRUITLESS_ATTEMPTS = 5
"""A file is given up after so many attempts in a row that brought not one byte."""


class Stopped(Exception):  # noqa: N818 - it is no error: the caller asked for it
    """The caller's `stop()` said so."""


def fetch(
    hub: Hub,
    pin: Pin,
    files: Sequence[RemoteFile],
    *,
    cache: BlobCache,
    into: Path,
    progress: Callable[[int], None],
    stop: Callable[[], bool],
    workers: int,
) -> dict[str, str]:
    """Puts `files` of the pinned repository under `into`; returns each one's digest by its path.

    The hub's credential must be able to read the repository now, whatever the cache holds. `progress` gets the number
    of bytes that came to hand since its last call, cached ones included. `stop` is asked several times a second; when
    it says yes, `Stopped` is raised within a second, and what was downloaded so far is resumed by the next call.
    Raises `FILE_CORRUPT`, `DISK_FULL`, `HUB_UNAVAILABLE` and the refusals of access.
    """
    for file in files:
        _destination(into, file.path)
    hub.check_access(pin.repo)
    _make_room(files, cache=cache, into=into)
    transfer = _Transfer(hub, pin, cache=cache, into=into)
    transfer.run(files, workers=workers, progress=progress, stop=stop)
    return {file.path: file.digest for file in files}


class _Transfer:
    """The threads of one `fetch`, and what they say to the one that waits."""

    def __init__(self, hub: Hub, pin: Pin, *, cache: BlobCache, into: Path) -> None:
        self.hub, self.pin, self.cache, self.into = hub, pin, cache, into
        self.stopped = threading.Event()
        self.news: queue.SimpleQueue[int | BaseException | None] = queue.SimpleQueue()
        self.replies: set[httpx2.Response] = set()

    def run(
        self, files: Sequence[RemoteFile], *, workers: int, progress: Callable[[int], None], stop: Callable[[], bool]
    ) -> None:
        waiting: queue.SimpleQueue[RemoteFile] = queue.SimpleQueue()
        # two files of one digest go after each other by the blob's lock, so order matters for nothing but speed
        for file in sorted(files, key=lambda file: -file.size):
            waiting.put(file)
        # daemons, so that a thread that hangs in a call to the network never holds up the process
        threads = [threading.Thread(target=self._work, args=(waiting,), daemon=True) for _ in range(workers)]
        for thread in threads:
            thread.start()
        try:
            self._attend(len(threads), progress=progress, stop=stop)
        finally:
            self._halt(threads)

    def _attend(self, running: int, *, progress: Callable[[int], None], stop: Callable[[], bool]) -> None:
        """Passes on progress until every thread is through; raises what a thread raised, or `Stopped`."""
        asked = 0.0
        while running:
            if time.monotonic() - asked >= POLL_SECONDS:
                asked = time.monotonic()
                if stop():
                    raise Stopped
            try:
                item = self.news.get(timeout=POLL_SECONDS)
            except queue.Empty:
                continue
            if isinstance(item, BaseException):
                raise item
            if item is None:
                running -= 1
            else:
                progress(item)

    def _halt(self, threads: list[threading.Thread]) -> None:
        """Ends the threads: a read that waits for the network wakes when its socket is shut down."""
        self.stopped.set()
        for reply in list(self.replies):
            with suppress(Exception):
                reply.extensions["network_stream"].get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        end = time.monotonic() + SETTLE_SECONDS
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _work(self, waiting: "queue.SimpleQueue[RemoteFile]") -> None:
        try:
            while True:
                self._bring(waiting.get_nowait())
        except queue.Empty:
            self.news.put(None)
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits, which raises it
            self.news.put(error)

    def checkpoint(self) -> None:
        if self.stopped.is_set():
            raise Stopped

    def _bring(self, file: RemoteFile) -> None:
        """One file into the job's directory, from the cache or from the Hub."""
        with self.cache.lock(file.digest, checkpoint=self._awaiting(file)):
            try:
                with disk_errors(self.cache.root):
                    if self.cache.has(file.digest, size=file.size):
                        self.news.put(file.size)
                    else:
                        self._download(file)
                    self.cache.link(file.digest, _destination(self.into, file.path))
            except SpearError as error:
                if error.code is Code.DISK_FULL:
                    self.cache.part(file.digest).unlink(missing_ok=True)
                raise

    def _awaiting(self, file: RemoteFile) -> Callable[[], None]:
        """To be asked while another job downloads the file: what that one brings is progress here too."""
        part, seen = self.cache.part(file.digest), -1

        def look() -> None:
            nonlocal seen
            self.checkpoint()
            with suppress(FileNotFoundError):
                size = part.stat().st_size
                if size != seen:
                    self.news.put(0)
                seen = size

        return look

    def _download(self, file: RemoteFile) -> None:
        part = self.cache.part(file.digest)
        found = self._attempt(file, part, report=self.news.put)
        if found != file.digest:
            # once more from the first byte: the way may have done it, or an old part; those bytes are counted already
            part.unlink(missing_ok=True)
            found = self._attempt(file, part, report=lambda _size: None)
        if found != file.digest:
            part.unlink(missing_ok=True)
            raise SpearError(
                Code.FILE_CORRUPT, f"{file.path} of {self.pin.repo} should be {file.digest} and is {found}",
                repo=self.pin.repo, file=file.path, expected=file.digest, found=found,
            )  # fmt: skip
        self.cache.keep(file.digest)

    def _attempt(self, file: RemoteFile, part: Path, *, report: Callable[[int], None]) -> str:
        """Downloads what `part` lacks and returns the digest of the whole."""
        with part.open("a+b") as stream:
            if stream.tell() > file.size:
                stream.truncate(0)
            stream.seek(0)
            hasher = Hasher(file.digest, size=file.size)
            while chunk := stream.read(CHUNK):
                self.checkpoint()
                hasher.update(chunk)
                report(len(chunk))
            self._receive_all(file, stream, hasher, report=report)
            return hasher.digest

    def _receive_all(
        self, file: RemoteFile, stream: BinaryIO, hasher: Hasher, *, report: Callable[[int], None]
    ) -> None:
        """Over as many connections as it takes, as long as they bring something."""
        fruitless = 0
        while (before := stream.tell()) < file.size:
            try:
                self._receive(file, stream, hasher, report=report)
            except SpearError as error:
                self.checkpoint()
                fruitless = fruitless + 1 if stream.tell() == before else 0
                if error.code is not Code.HUB_UNAVAILABLE or fruitless == FRUITLESS_ATTEMPTS:
                    raise
                self._pause(0.1 * 2**fruitless)

    def _receive(self, file: RemoteFile, stream: BinaryIO, hasher: Hasher, *, report: Callable[[int], None]) -> None:
        start = stream.tell()
        with self.hub.stream(self.pin.repo, self.pin.commit, file.path, start=start) as reply:
            self.replies.add(reply)
            try:
                # a server may ignore the range and begin with the first byte
                skip = start if reply.status_code != httpx2.codes.PARTIAL_CONTENT else 0
                for chunk in reply.iter_bytes():
                    self.checkpoint()
                    fresh, skip = chunk[skip:], max(0, skip - len(chunk))
                    self._write(fresh[: file.size - stream.tell()], stream, hasher, report=report)
            finally:
                self.replies.discard(reply)
        if stream.tell() == start:
            raise SpearError(Code.HUB_UNAVAILABLE, f"the Hub sent nothing of {file.path}", file=file.path)

    @staticmethod
    def _write(data: bytes, stream: BinaryIO, hasher: Hasher, *, report: Callable[[int], None]) -> None:
        if data:
            stream.write(data)
            hasher.update(data)
            report(len(data))

    def _pause(self, seconds: float) -> None:
        if self.stopped.wait(seconds):
            raise Stopped


def _destination(into: Path, path: str) -> Path:
    """Where a file of the repository goes; refuses a name that leads out of the directory."""
    if not safe_path(path):
        raise SpearError(Code.HUB_REFUSED, f"a file has an unsafe name: {path[:200]!r}", file=path[:200])
    return into / path


def _make_room(files: Sequence[RemoteFile], *, cache: BlobCache, into: Path) -> None:
    """Checks the disk before the first byte, giving up cached files that this job does not need."""
    into.mkdir(parents=True, exist_ok=True)
    wanted = {file.digest: file.size for file in files}
    missing = sum(size for digest, size in wanted.items() if not cache.has(digest, size=size))
    cache.trim(room=missing, keep=wanted.keys())
    needs = {cache.root: missing}
    if cache.root.stat().st_dev != into.stat().st_dev:
        needs[into] = sum(file.size for file in files)  # copies there, not links
    for place, need in needs.items():
        lacking = need - shutil.disk_usage(place).free
        if lacking > 0 and (place != cache.root or cache.release(lacking, keep=wanted.keys()) < lacking):
            free = shutil.disk_usage(place).free
            raise SpearError(
                Code.DISK_FULL, f"the download takes {need} bytes and the worker's disk has {free}",
                free=free, need=need,
            )  # fmt: skip
