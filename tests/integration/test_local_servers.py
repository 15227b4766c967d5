import os
import pwd
import signal
import site
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import redis

import app
from app.errors import SpearError
from app.local.directories import is_open_to_all
from app.local.postgres import Postgres
from app.local.valkey import Valkey

ROOT = Path(__file__).resolve().parents[2]
OWNER = """
import sys, time
from pathlib import Path
from app.local.postgres import Postgres
from app.local.valkey import Valkey
server = {"postgres": Postgres, "valkey": Valkey}[sys.argv[1]](Path(sys.argv[2]))
server.start()
print(server.url, flush=True)
time.sleep(100)
"""


def connect(server: Postgres) -> psycopg.Connection:
    return psycopg.connect(server.url.replace("+psycopg", "", 1), autocommit=True)


def processes_with(text: str) -> list[int]:
    """Processes, all users' included, that bear `text` in their command line or hold a file below it."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            links = [str((entry / "cwd").readlink()), *(str(link.readlink()) for link in (entry / "fd").iterdir())]
        except OSError:
            continue
        if int(entry.name) != os.getpid() and (text in command or any(link.startswith(text) for link in links)):
            found.append(int(entry.name))
    return found


def wait_until_gone(text: str) -> list[int]:
    deadline = time.monotonic() + 10
    while (left := processes_with(text)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def start_owner(kind: str, home: Path, *, python: str = sys.executable, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [python, "-c", OWNER, kind, str(home)], stdout=subprocess.PIPE, text=True, **options
    )


def test_postgres_keeps_its_data_and_address_over_a_restart(tmp_path: Path) -> None:
    with Postgres(tmp_path / "pg") as server, connect(server) as session:
        session.execute("CREATE TABLE kept (n int)")
        session.execute("INSERT INTO kept VALUES (7)")
        address = server.url
    assert wait_until_gone(str(tmp_path)) == []
    with Postgres(tmp_path / "pg") as server, connect(server) as session:
        assert server.url == address
        assert session.execute("SELECT n FROM kept").fetchone() == (7,)
        assert session.execute("SHOW fsync").fetchone() == ("on",)


def test_valkey_keeps_its_data_and_address_over_a_restart(tmp_path: Path) -> None:
    with Valkey(tmp_path / "vk") as server, redis.Redis.from_url(server.url) as client:
        client.lpush("queue", "a", "b")
        address = server.url
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("appendfsync") == {"appendfsync": "everysec"}
    assert wait_until_gone(str(tmp_path)) == []
    with Valkey(tmp_path / "vk") as server, redis.Redis.from_url(server.url) as client:
        assert server.url == address
        assert client.llen("queue") == 2


@pytest.mark.parametrize("kind", [Postgres, Valkey])
def test_second_server_on_a_directory_is_refused(kind: type[Postgres | Valkey], tmp_path: Path) -> None:
    with kind(tmp_path / "home") as first:
        with pytest.raises(SpearError, match="is in use by another"):
            kind(tmp_path / "home").start(patience=0)
        assert first.running


@pytest.mark.parametrize("kind", ["postgres", "valkey"])
def test_kill_9_of_the_owner_leaves_no_process_and_the_data(kind: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with start_owner(kind, home) as owner:
        assert owner.stdout
        assert owner.stdout.readline().strip()
        assert len(processes_with(str(home))) > 1
        owner.kill()
    assert wait_until_gone(str(home)) == []
    server = {"postgres": Postgres, "valkey": Valkey}[kind](home)
    with server:
        assert server.running


def test_postgres_starts_again_after_its_own_kill_9(tmp_path: Path) -> None:
    with Postgres(tmp_path / "pg") as server:
        with connect(server) as session:
            session.execute("CREATE TABLE kept AS SELECT 1")
        os.kill(server.pid, signal.SIGKILL)
        while server.running:
            time.sleep(0.01)
        server.start()
        with connect(server) as session:
            assert session.execute("SELECT * FROM kept").fetchone() == (1,)


def test_postgres_closed_directories_stay_closed(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with Postgres(closed / "deep" / "pg") as server, connect(server) as session:
        assert session.execute("SELECT current_user").fetchone() == ("postgres",)
    assert closed.stat().st_mode & 0o777 == 0o700


def test_postgres_reports_why_it_does_not_start(tmp_path: Path) -> None:
    with Postgres(tmp_path / "pg"):
        pass
    (tmp_path / "pg" / "cluster" / "PG_VERSION").write_text("9\n")
    with pytest.raises(SpearError, match=r"Postgres ended at its start.*incompatible"):
        Postgres(tmp_path / "pg").start()


def test_interrupted_creation_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "pg" / "draft" / "base").mkdir(parents=True)
    with Postgres(tmp_path / "pg", durable=False) as server, connect(server) as session:
        assert session.execute("SELECT 1").fetchone() == (1,)


def test_long_paths_still_get_a_short_socket(tmp_path: Path) -> None:
    home = tmp_path / ("x" * 120)
    with Valkey(home, durable=False) as server, redis.Redis.from_url(server.url) as client:
        assert client.ping()


def open_home() -> Iterator[tuple[Path, pwd.struct_passwd]]:
    """A directory of another user's, where that user can reach it."""
    user = pwd.getpwnam("daemon")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as home:
        Path(home).chmod(0o755)
        (Path(home) / "data").mkdir()
        os.chown(Path(home) / "data", user.pw_uid, user.pw_gid)
        yield Path(home) / "data", user


foreign_home = pytest.fixture(open_home, name="foreign_home")
# an interpreter of our version that all users can run: a virtual environment's may lie in root's home
PYTHONS = [Path(sys.executable).resolve(), Path(f"/usr/bin/python3.{sys.version_info.minor}")]
OPEN_PYTHON = next((path for path in PYTHONS if path.exists() and is_open_to_all(path)), None)
ENVIRONMENT = {"PYTHONPATH": os.pathsep.join([str(ROOT), *site.getsitepackages()]), "PYTHONDONTWRITEBYTECODE": "1"}
needs_root = pytest.mark.skipif(
    os.getuid() != 0 or OPEN_PYTHON is None or not is_open_to_all(Path(app.__file__).parent),
    reason="only root can run a process as another user, and only from a checkout and with a Python that all can read",
)


@needs_root
def test_other_users_cannot_log_in(postgres_server: Postgres, foreign_home: tuple[Path, pwd.struct_passwd]) -> None:
    sockets = Path(postgres_server.url.split("host=")[1])
    with opened(sockets.parent), opened(sockets), opened(sockets / ".s.PGSQL.5432"):
        script = f"import psycopg; psycopg.connect({postgres_server.url.replace('+psycopg', '', 1)!r})"
        attempt = subprocess.run(
            [str(OPEN_PYTHON), "-c", script],
            user=foreign_home[1].pw_uid, env=ENVIRONMENT, cwd="/", capture_output=True, text=True, check=False,
        )
    assert attempt.returncode != 0
    assert "Peer authentication failed" in attempt.stderr


@contextmanager
def opened(path: Path) -> Iterator[None]:
    before = path.stat().st_mode
    path.chmod(0o777)
    yield
    path.chmod(before)


@needs_root
@pytest.mark.parametrize("kind", ["postgres", "valkey"])
def test_servers_run_for_an_ordinary_user(kind: str, foreign_home: tuple[Path, pwd.struct_passwd]) -> None:
    home, user = foreign_home
    identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    env = {**ENVIRONMENT, "TMPDIR": str(home)}  # sockets that a killed owner leaves go with the directory
    with start_owner(kind, home / kind, python=str(OPEN_PYTHON), cwd="/", env=env, **identity) as owner:
        assert owner.stdout
        assert owner.stdout.readline().strip()
        servers = processes_with(str(home))
        assert {Path(f"/proc/{pid}").stat().st_uid for pid in servers} == {user.pw_uid}
        owner.kill()
    assert wait_until_gone(str(home)) == []
