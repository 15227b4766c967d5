"""`spear up` as its users start it: a process of its own, told to stop by a signal."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.local.directories import remove_socket_directory, socket_directory

ROOT = Path(__file__).resolve().parents[2]
WAIT = 60.0


class Up:
    """A running `spear up`."""

    def __init__(self, home: Path, *options: str) -> None:
        self.home = home
        argv = [sys.executable, "-m", "app.cli", "up", "--port", "0", "--data-dir", str(home), *options]
        env = {name: value for name, value in os.environ.items() if not name.startswith("SPEAR_")}
        self.log = (home.parent / "up.log").open("ab")
        self.process = subprocess.Popen(argv, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=self.log, text=True)
        assert self.process.stdout
        self.line = self.process.stdout.readline()
        self.ready: dict[str, Any] = json.loads(self.line) if "--json" in options else self.read_sentence()

    def read_sentence(self) -> dict[str, Any]:
        found = re.fullmatch(r"spear is ready at (\S+) with API key (\S+), using the Hub at (\S+)\n", self.line)
        assert found, self.line
        return dict(zip(("api", "api_key", "hub"), found.groups(), strict=True))

    def get(self, path: str, *, key: str | None = None) -> httpx2.Response:
        return httpx2.get(self.ready["api"] + path, headers={"Authorization": f"Bearer {key or self.ready['api_key']}"})

    def answers(self, path: str) -> bool:
        try:
            return self.get(path).status_code == 200
        except httpx2.TransportError:
            return False

    def pid_of(self, words: str) -> int:
        [pid] = [pid for pid, command in self.processes() if words in command]
        return pid

    def processes(self) -> list[tuple[int, str]]:
        """The parts and all that they started: whatever bears the data directory in its environment or its words."""
        return list(processes_of(self.home))

    def end(self, signum: signal.Signals) -> int:
        self.process.send_signal(signum)
        status = self.process.wait(WAIT)
        assert self.process.stdout
        assert self.process.stdout.read() == "", "the ready line is all that stands on standard output"
        self.process.stdout.close()
        self.log.close()
        return status


def processes_of(home: Path) -> Iterator[tuple[int, str]]:
    mark = os.fsencode(home)
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command, environment = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
            directory = os.fsencode((entry / "cwd").readlink())
        except OSError:
            continue
        if int(entry.name) != os.getpid() and (mark in command or mark in environment or directory.startswith(mark)):
            yield int(entry.name), command.replace(b"\0", b" ").decode()


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + WAIT
    while not (held := condition()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return held


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "home"
    yield path
    for part in ("postgres", "valkey"):  # what a killed stack leaves until its next start
        remove_socket_directory(socket_directory(path / part))


@pytest.mark.slow
def test_the_whole_life_of_a_stack(home: Path) -> None:
    first = Up(home, "--local-hub", "--json", "--workers", "2")
    check_answers(first)
    check_refusal_of_a_second(home)
    assert first.end(signal.SIGTERM) == 0
    assert first.processes() == []

    second = Up(home, "--local-hub")
    assert second.ready["api_key"] != first.ready["api_key"]
    assert second.get("/merges", key=first.ready["api_key"]).status_code == 401
    check_restarts(second)
    second.process.kill()
    second.end(signal.SIGKILL)
    assert eventually(lambda: second.processes() == [])
    log = (home.parent / "up.log").read_text()
    assert not [secret for secret in (*secrets_of(first), second.ready["api_key"]) if secret in log]


def secrets_of(up: Up) -> tuple[str, str]:
    return up.ready["api_key"], up.ready["hub_token"]


def check_answers(up: Up) -> None:
    assert set(up.ready) == {"api", "api_key", "hub", "hub_token"}
    assert up.get("/readyz").status_code == 200
    assert up.get("/merges").json()["data"] == []
    assert (up.home / "hub-token").stat().st_mode & 0o777 == 0o600
    assert up.home.stat().st_mode & 0o777 == 0o700
    headers = {"Authorization": f"Bearer {up.ready['hub_token']}"}
    assert httpx2.get(up.ready["hub"] + "/api/whoami-v2", headers=headers).json()["name"] == "local"
    commands = [command for _, command in up.processes()]
    assert all(any(f"spear-worker-{number}" in command for command in commands) for number in (1, 2))
    assert not [command for command in commands if any(secret in command for secret in secrets_of(up))]


def check_refusal_of_a_second(home: Path) -> None:
    argv = [sys.executable, "-m", "app.cli", "up", "--port", "0", "--data-dir", str(home)]
    refused = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "is in use by another `spear up`" in " ".join(refused.stderr.split())
    assert refused.stdout == ""


def check_restarts(up: Up) -> None:
    """Parts that die come back, at the same address."""
    for words in ("app.cli api", "app.local.hub", "postgres -D", "valkey-server"):
        os.kill(up.pid_of(words), signal.SIGKILL)
    assert eventually(lambda: not up.answers("/readyz"))
    assert eventually(lambda: up.answers("/readyz"))
    assert up.get("/merges").status_code == 200
    assert eventually(lambda: any("app.local.hub" in command for _, command in up.processes()))


def test_a_stop_before_it_is_ready_leaves_nothing(home: Path) -> None:
    argv = [sys.executable, "-m", "app.cli", "up", "--port", "0", "--data-dir", str(home), "--local-hub"]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as starting:
        assert eventually((home / "postgres" / "cluster").exists)
        starting.terminate()
        output, _ = starting.communicate(timeout=WAIT)
    assert (starting.returncode, output) == (0, "")
    assert list(processes_of(home)) == []
