"""The servers under load: our API on embedded servers, a bare route, and the local Hub that a submission asks."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.local.postgres import Postgres
from app.local.valkey import Valkey


@contextmanager
def databases(home: Path) -> Iterator[tuple[str, str]]:
    """URLs of a Postgres and a Valkey."""
    with Postgres(home / "postgres") as postgres, Valkey(home / "valkey") as valkey:
        yield postgres.url, valkey.url


@contextmanager
def api(home: Path, **settings: str) -> Iterator[int]:
    """The API as `spear api` serves it, with its log in a file; its port."""
    port = free_port()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SPEAR_")}
    argv = [sys.executable, "-m", "app.cli", "api", "--port", str(port)]
    with _running(argv, env=inherited | settings, log=home / "api.log", url=f"http://127.0.0.1:{port}/healthz"):
        yield port


@contextmanager
def bare(home: Path) -> Iterator[int]:
    """The bare route, with the same server and options."""
    port = free_port()
    argv = [sys.executable, "-m", "uvicorn", "benchmarks.load.bare:app", "--port", str(port), "--no-access-log"]
    with _running(argv, env=dict(os.environ), log=home / "bare.log", url=f"http://127.0.0.1:{port}/bare/x"):
        yield port


def load(port: int, requests: list[str], *, seconds: float) -> dict[str, object]:
    """What pollers in a process of their own saw."""
    asked = json.dumps({"host": "127.0.0.1", "port": port, "seconds": seconds, "requests": requests})
    argv = [sys.executable, "-m", "benchmarks.load.pollers"]
    done = subprocess.run(argv, input=asked, capture_output=True, text=True, check=True)
    found: dict[str, object] = json.loads(done.stdout)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _running(argv: list[str], *, env: dict[str, str], log: Path, url: str) -> Iterator[None]:
    with log.open("wb") as stream, subprocess.Popen(argv, env=env, stdout=stream, stderr=stream) as process:
        try:
            _wait(url, process)
            yield
        finally:
            process.terminate()


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except (urllib.error.URLError, OSError):
            assert process.poll() is None, "the server ended at its start"
            time.sleep(0.1)
    raise AssertionError(f"{url} does not answer")
