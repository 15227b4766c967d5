"""What the embedded servers have in common: a locked directory, a socket directory, one child process."""

import os
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Self

from app.errors import Code, SpearError
from app.local import processes
from app.local.directories import PATIENCE_SECONDS, lock, remove_socket_directory, socket_directory

_START_SECONDS = 60.0  # recovery from a crash included


class Server(ABC):
    """One server on `data_dir`, reachable through a Unix socket. It dies with us; its directory is locked meanwhile.

    `durable=False` trades crash safety for speed, for tests.
    """

    name: str
    title: ClassVar[str]
    socket_name: ClassVar[str]
    stop_signal: ClassVar[signal.Signals]
    stop_seconds: ClassVar[float]

    def __init__(self, data_dir: Path, *, durable: bool = True) -> None:
        self._home = data_dir.absolute()
        self._durable = durable
        self._sockets = socket_directory(self._home, reserve=len(self.socket_name))
        self._process: subprocess.Popen[bytes] | None = None
        self._held: list[int] = []
        """descriptors that the server inherits; the first is the lock on the directory"""

    @property
    @abstractmethod
    def url(self) -> str:
        """Where the server is reached, the same at every start."""

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self, *, patience: float = PATIENCE_SECONDS) -> None:
        """Start the server, made anew at the first start, and wait until it answers.

        A directory in use is waited for during `patience` seconds, since a server whose owner was killed needs a moment
        to end. Raises `SpearError` (not_ready) when it stays in use or the server does not start.
        """
        self._release()
        self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._held.append(lock(self._home, what=self.title, patience=patience))
        try:
            socket_directory(self._home)  # a stop removed it
            self._process = self._begin()
            self._wait()
        except BaseException:
            self.stop()
            raise

    def ask_to_stop(self) -> None:  # noqa: B027  (its whole duty)
        """Nothing: a server stops last, when nobody needs it any more."""

    def stop(self) -> None:
        """Stop the server in good order: what it holds is written first."""
        if self._process is not None:
            if self.running:
                self._process.send_signal(self.stop_signal)
            processes.finish(self._process, grace=self.stop_seconds)
            self._process = None
        self._release()
        remove_socket_directory(self._sockets)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @abstractmethod
    def _begin(self) -> subprocess.Popen[bytes]:
        """Launch the server's process."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether the server accepts sessions."""

    @property
    def _log(self) -> Path:
        return self._home / f"{self.name}.log"

    def _release(self) -> None:
        while self._held:
            os.close(self._held.pop())

    def _wait(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if not self.running:
                raise self._failure(f"{self.title} ended at its start")
            if time.monotonic() > deadline:
                raise self._failure(f"{self.title} did not start within {_START_SECONDS:.0f} s")
            time.sleep(0.01)

    def _failure(self, what: str) -> SpearError:
        last = self._log.read_text(errors="replace").strip().splitlines()[-5:]
        return SpearError(Code.NOT_READY, f"{what}; {self._log} ends with: {' / '.join(last)}", file=str(self._log))
