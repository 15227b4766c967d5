"""The running service: `spear up` as a user would start it, and `spear submit`."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.demo.places import HOME

SPEAR = Path(sys.executable).with_name("spear")
DATA = HOME / "service"
LOG = HOME / "service.log"
PORT = 8470
STOP_SECONDS = 60
JOB_SECONDS = 900

Ready = dict[str, str]


@contextmanager
def running() -> Iterator[Ready]:
    """The service on this machine with its own servers and a local Hub; stopped at the end, whatever happens."""
    command = [SPEAR, "up", "--local-hub", "--json", "--port", str(_port()), "--data-dir", DATA]
    with LOG.open("w") as log:
        service = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=_environment(), text=True)
    try:
        assert service.stdout is not None
        line = service.stdout.readline()
        if not line:
            raise SystemExit(f"the service did not start; its log is {LOG}:\n{_tail(LOG)}")
        yield json.loads(line)
    finally:
        _stop(service)


def clear(target: str, *, ready: Ready) -> None:
    """End the jobs for `target` that an interrupted run has left: only one may be active for a target."""
    active = ("--status", "queued", "--status", "running", "--status", "cancelling")
    left = _spear("list", "--target", target, *active, "--json", ready=ready)
    for job in json.loads(left.stdout):
        _spear("cancel", job["id"], "--json", ready=ready)
        _spear("watch", job["id"], "--json", ready=ready)  # to its end, whichever that is


def submit(recipe: Path, *, ready: Ready) -> dict[str, Any]:
    """`spear submit --wait`: its bars go to the terminal, the job comes back."""
    done = _spear("submit", str(recipe), "--wait", "--json", ready=ready, shown=True)
    job = json.loads(done.stdout) if done.stdout.strip() else {}
    if done.returncode:
        raise SystemExit(f"the job did not succeed: {job.get('error') or 'see above'}; the service's log is {LOG}")
    return job


def _spear(*words: str, ready: Ready, shown: bool = False) -> subprocess.CompletedProcess[str]:
    """A command of the client, its standard output kept, its bars and messages `shown` or not."""
    env = _environment() | {"SPEAR_API_URL": ready["api"], "SPEAR_API_KEY": ready["api_key"]}
    err = None if shown else subprocess.DEVNULL
    try:
        return subprocess.run(
            [SPEAR, *words], env=env, stdout=subprocess.PIPE, stderr=err, text=True, check=False, timeout=JOB_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise SystemExit(f"no answer in {JOB_SECONDS} s; the service's log is {LOG}:\n{_tail(LOG)}") from None


def _environment() -> dict[str, str]:
    """Without settings of another installation, which would lead the demo to its database or Hub."""
    return {name: value for name, value in os.environ.items() if not name.startswith("SPEAR_")}


def _port() -> int:
    """The same port each time, so that a job's address lasts; another one where that is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", PORT))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _stop(service: subprocess.Popen[str]) -> None:
    service.send_signal(signal.SIGTERM)
    try:
        service.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        service.kill()
        service.wait()


def _tail(path: Path) -> str:
    return "\n".join(path.read_text().splitlines()[-20:])
