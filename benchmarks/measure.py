"""Running a process and watching it: wall and CPU seconds, peak anonymous memory."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

POLL_SECONDS = 0.02
TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Figures:
    """Of one stage of one process: seconds, and megabytes of anonymous memory above the idle process."""

    wall: float
    cpu: float
    anonymous: float


def run_plain(command: Sequence[str], *, core: int | None, env: dict[str, str] | None = None) -> Figures:
    """A whole process, its memory from nothing."""
    began = time.monotonic()
    before = os.times()
    child = subprocess.Popen(_pinned(command, core), env={**os.environ, **(env or {}), "OMP_NUM_THREADS": "1"},
                             stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)  # fmt: skip
    peak = 0
    while child.poll() is None:
        peak = max(peak, anonymous(child.pid))
        time.sleep(POLL_SECONDS)
    assert child.stderr
    errors = child.stderr.read().decode()
    child.stderr.close()
    if child.returncode:
        raise RuntimeError(f"{command[0]} failed:\n{errors[-2000:]}")
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Figures(time.monotonic() - began, cpu, peak / 1e6)


def run_pipeline(python: str, task: Path, *, core: int | None) -> dict[str, Figures]:
    """The worker's computing child on a task: figures by stage, and `start` for what comes before the first."""
    reading, writing = os.pipe()
    command = [python, "-m", "worker.pipeline", "spear-worker-child", str(task), str(writing)]
    child = subprocess.Popen(_pinned(command, core), pass_fds=[writing], env={**os.environ, "OMP_NUM_THREADS": "1"})
    os.close(writing)
    watch = _Watch(child.pid)
    os.set_blocking(reading, False)
    rest = b""
    while True:
        part = _read(reading)
        if part == b"":
            break
        *lines, rest = (rest + (part or b"")).split(b"\n")
        for line in lines:
            watch.hear(json.loads(line))
        watch.look()
        time.sleep(POLL_SECONDS)
    os.close(reading)
    if child.wait() or watch.failure:
        raise RuntimeError(f"the pipeline failed: {watch.failure}")
    return watch.stages


class _Watch:
    def __init__(self, pid: int) -> None:
        self.stages: dict[str, Figures] = {}
        self.failure = ""
        self._pid = pid
        self._stage = "start"
        self._idle = 0
        self._mark()

    def hear(self, event: dict[str, str]) -> None:
        if event["kind"] == "stage":
            if self._stage == "start":
                self._idle = anonymous(self._pid)
            self._close()
            self._stage = event["name"]
        elif event["kind"] == "done":
            self._close()
        elif event["kind"] == "error":
            self.failure = event["message"]

    def look(self) -> None:
        self._peak = max(self._peak, anonymous(self._pid))
        self._cpu = max(self._cpu, cpu_seconds(self._pid))

    def _close(self) -> None:
        self.look()
        wall, cpu = time.monotonic() - self._began, self._cpu - self._cpu_began
        self.stages[self._stage] = Figures(wall, cpu, (self._peak - self._idle) / 1e6)
        self._mark()

    def _mark(self) -> None:
        self._began = time.monotonic()
        self._cpu = self._cpu_began = cpu_seconds(self._pid)
        self._peak = 0


def together(runs: Sequence[Callable[[], object]]) -> float:
    """Wall seconds of processes that run side by side; `runs` start them and return when they end."""
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415  (for this one figure)

    began = time.monotonic()
    with ThreadPoolExecutor(len(runs)) as pool:
        for done in [pool.submit(run) for run in runs]:
            done.result()
    return time.monotonic() - began


def anonymous(pid: int) -> int:
    """Bytes of anonymous memory of a process; 0 when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    line = next((line for line in status.splitlines() if line.startswith("RssAnon")), "RssAnon: 0")
    return int(line.split()[1]) * 1024


def cpu_seconds(pid: int) -> float:
    """User and system seconds of a process so far; 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICK


def _read(descriptor: int) -> bytes | None:
    try:
        return os.read(descriptor, 1 << 16)
    except BlockingIOError:
        return None


def _pinned(command: Sequence[str], core: int | None) -> list[str]:
    return [*(["taskset", "-c", str(core)] if core is not None else []), *command]
