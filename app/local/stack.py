"""`spear up`: the whole service on one machine, from empty to answering, until it is told to stop."""

import json
import os
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import structlog

from app.errors import Code, SpearError
from app.hub.client import Hub
from app.jobs import migrate
from app.jobs.database import Database, DatabaseError
from app.jobs.keys import Keys
from app.local.directories import lock
from app.local.hub.store import HubStore
from app.local.postgres import Postgres
from app.local.supervisor import Program, Supervisor
from app.local.valkey import Valkey
from app.settings import PREFIX, Settings

HOST = "127.0.0.1"
LOCAL_USER = "local"
KEY_NAME = "local"
READY_SECONDS = 120.0
WORKER_GRACE_SECONDS = 30.0

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Ready:
    """What a caller needs to use the running service; `hub_token` only for the local Hub."""

    api: str
    api_key: str
    hub: str
    hub_token: str | None


class Stopped(Exception):  # noqa: N818  (a wish, not an error)
    """The stack was told to stop before it was ready."""


class Signals:
    """Whether somebody asked us to stop: SIGTERM, SIGINT, or SIGHUP when the terminal is closed."""

    def __init__(self) -> None:
        self._received = False
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signum is not signal.SIGHUP or signal.getsignal(signum) is not signal.SIG_IGN:  # nohup's wish
                signal.signal(signum, self._note)

    def __call__(self) -> bool:
        return self._received

    def _note(self, *_: object) -> None:
        self._received = True


def run(settings: Settings, *, port: int, workers: int, local_hub: bool, as_json: bool) -> None:
    """Start everything, print the ready line on standard output, and keep all parts running until a signal comes.

    Raises `SpearError` (not_ready) when the data directory or the port is in use, or a part does not start.
    """
    stopping = Signals()
    held = _hold(settings.home)
    try:
        with Supervisor(longest_delay=settings.restart_seconds) as supervisor:
            stack = Stack(settings, supervisor, stopping=stopping)
            ready = stack.start(port=_free_port(port), workers=workers, local_hub=local_hub)
            print(json.dumps(asdict(ready)) if as_json else _sentence(ready), flush=True)  # noqa: T201  (the product)
            supervisor.watch(until=stopping)
    except Stopped:
        log.info("stack.stopped_early")
    except (DatabaseError, OSError) as failure:
        raise SpearError(Code.NOT_READY, f"a part of the service did not start: {failure}") from failure
    finally:
        os.close(held)


def _hold(home: Path) -> int:
    """The lock on the data directory, which is made private if it is new."""
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        return lock(home, what="`spear up`", patience=0)
    except OSError as failure:
        message = f"the data directory {home} cannot be used: {failure.strerror}"
        raise SpearError(Code.NOT_READY, message, directory=str(home)) from failure


class Stack:
    """Starts the parts in the order in which they need each other."""

    def __init__(self, settings: Settings, supervisor: Supervisor, *, stopping: Callable[[], bool]) -> None:
        self._settings = settings
        self._supervisor = supervisor
        self._stopping = stopping
        self._home = settings.home

    def start(self, *, port: int, workers: int, local_hub: bool) -> Ready:
        """Start all parts and wait until the API is ready for requests."""
        database_url, redis_url = self._servers()
        migrate.upgrade(database_url)
        self._go_on()
        hub, token_file = self._hub(beside=port) if local_hub else self._remote_hub()
        token = token_file.read_text().strip() if token_file else None
        reaches = self._namespace(hub, token) if not local_hub else LOCAL_USER
        key = self._key(database_url, reaches)
        api = f"http://{HOST}:{port}"
        env = self._environment(database_url=database_url, redis_url=redis_url, hub_endpoint=hub, api_url=api)
        if token_file:
            env[f"{PREFIX}HUB_TOKEN_FILE"] = str(token_file)
        self._programs(env, port=port, workers=workers)
        self._wait_for(f"{api}/readyz")
        return Ready(api=api, api_key=key, hub=hub, hub_token=token if local_hub else None)

    def _servers(self) -> tuple[str, str]:
        """The configured servers, or else embedded ones below the data directory."""
        database_url, redis_url = self._settings.database_url, self._settings.redis_url
        if not database_url:
            database_url = self._added(Postgres(self._home / "postgres"))
        if not redis_url:
            redis_url = self._added(Valkey(self._home / "valkey"))
        return database_url, redis_url

    def _added(self, server: Postgres | Valkey) -> str:
        self._supervisor.add(server)
        return server.url

    def _hub(self, *, beside: int) -> tuple[str, Path]:
        """A local Hub with one user, at the next port after the API's where that is free."""
        root = self._home / "hub"
        token_file = _write_private(self._home / "hub-token", HubStore(root).ensure_user(LOCAL_USER))
        port = _free_port(beside + 1, or_any=True)
        argv = [sys.executable, "-P", "-m", "app.local.hub", "--root", str(root), "--port", str(port)]
        self._supervisor.add(Program("hub", argv, env=dict(os.environ)))
        endpoint = f"http://{HOST}:{port}"
        self._wait_for(endpoint)
        return endpoint, token_file

    def _remote_hub(self) -> tuple[str, Path | None]:
        file = self._settings.hub_token_file
        return self._settings.hub_endpoint, file.expanduser().absolute() if file else None

    def _namespace(self, endpoint: str, token: str | None) -> str | None:
        """The user behind the service's token; without a token only public repositories can be read."""
        if token is None:
            return None
        return Hub(endpoint, token, timeout_seconds=self._settings.hub_timeout_seconds).whoami()

    def _key(self, database_url: str, namespace: str | None) -> str:
        """A new key for this machine's user, in the place of the one printed at the last start."""
        database = Database(database_url, pool_size=1)
        try:
            keys = Keys(database, secret=self._settings.secret)
            keys.revoke(name=KEY_NAME, owner=KEY_NAME)
            grants = (namespace,) if namespace else ()
            scopes = ("merges:read", "merges:write")
            return keys.create(name=KEY_NAME, scopes=scopes, reads=grants, writes=grants, unlimited=True)
        finally:
            database.close()

    def _environment(self, **values: str) -> dict[str, str]:
        """This process's environment with the stack's own addresses; secrets go by files only."""
        secret = self._settings.secret_file or self._home / "secret"
        paths = {"data_dir": str(self._home), "secret_file": str(secret.absolute())}
        ours = {f"{PREFIX}{name.upper()}": value for name, value in (values | paths).items()}
        inherited = {name: value for name, value in os.environ.items() if name != f"{PREFIX}API_KEY"}
        direct = ",".join(filter(None, [os.environ.get("NO_PROXY") or os.environ.get("no_proxy"), HOST]))
        return inherited | ours | {"NO_PROXY": direct, "no_proxy": direct}

    def _programs(self, env: Mapping[str, str], *, port: int, workers: int) -> None:
        spear = [sys.executable, "-P", "-m", "app.cli"]
        self._supervisor.add(Program("api", [*spear, "api", "--port", str(port)], env=env))
        for number in range(1, workers + 1):
            name = f"spear-worker-{number}"
            argv = [*spear, "worker", "--name", name]
            own = {**env, **_compute(number - 1), **self._metrics(number - 1)}
            self._supervisor.add(Program(name, argv, env=own, grace=WORKER_GRACE_SECONDS))
        self._supervisor.add(Program("sweep", [*spear, "sweep"], env=env))

    def _metrics(self, index: int) -> dict[str, str]:
        """A port for each worker's figures, counted up from the configured one, if there is one."""
        first = self._settings.metrics_port
        return {f"{PREFIX}METRICS_PORT": str(first + index)} if first else {}

    def _wait_for(self, url: str) -> None:
        """Wait until the address answers; any answer but a 5xx is one. Parts that die meanwhile are restarted."""
        deadline = time.monotonic() + READY_SECONDS
        self._supervisor.watch(until=lambda: self._stopping() or _answers(url) or time.monotonic() > deadline)
        self._go_on()
        if time.monotonic() > deadline:
            raise SpearError(Code.NOT_READY, f"{url} did not answer within {READY_SECONDS:.0f} s", url=url)

    def _go_on(self) -> None:
        if self._stopping():
            raise Stopped


def _answers(url: str) -> bool:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=2):
            return True
    except urllib.error.HTTPError as reply:
        return reply.code < 500
    except OSError:
        return False


def _free_port(wanted: int, *, or_any: bool = False) -> int:
    """`wanted` if it is free; 0 stands for any."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, wanted))
        except (OSError, OverflowError):
            if or_any:
                return _free_port(0)
            raise SpearError(Code.NOT_READY, f"port {wanted} is in use; choose another", port=wanted) from None
        return int(probe.getsockname()[1])


def _compute(index: int) -> dict[str, str]:
    """One arithmetic thread per worker, and a GPU for each in turn where there are several."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",") if visible else [str(n) for n, _ in enumerate(Path("/proc/driver/nvidia/gpus").glob("*"))]
    chosen = {"CUDA_VISIBLE_DEVICES": gpus[index % len(gpus)]} if gpus else {}
    return {"OMP_NUM_THREADS": "1", **chosen}


def _write_private(path: Path, text: str) -> Path:
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o600)
    draft.write_text(text)
    draft.replace(path)
    return path


def _sentence(ready: Ready) -> str:
    return f"spear is ready at {ready.api} with API key {ready.api_key}, using the Hub at {ready.hub}"
