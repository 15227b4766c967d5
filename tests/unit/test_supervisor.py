import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from app.errors import Code, SpearError
from app.local import supervisor
from app.local.supervisor import Program, Supervisor

ENV = dict(os.environ)
ROOT = Path(__file__).resolve().parents[2]


def shell(name: str, script: str, *, grace: float = 5.0) -> Program:
    return Program(name, ["/bin/sh", "-c", script], env=ENV, grace=grace)


def python(name: str, script: str, *, grace: float = 5.0) -> Program:
    return Program(name, [sys.executable, "-c", script], env=ENV, grace=grace)


def within(seconds: float, condition: Callable[[], bool]) -> Callable[[], bool]:
    deadline = time.monotonic() + seconds
    return lambda: condition() or time.monotonic() > deadline


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_part_that_dies_is_started_again(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    with Supervisor() as parts:
        parts.add(shell("brief", f"echo run >> {runs}; test $(wc -l < {runs}) -gt 1 && exec sleep 60"))
        parts.watch(until=within(5, lambda: runs.exists() and len(runs.read_text().split()) == 2))
    assert runs.read_text().split() == ["run", "run"]


def test_waits_between_restarts_grow(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    with Supervisor() as parts:
        parts.add(shell("doomed", f"date +%s.%N >> {runs}; exit 1"))
        parts.watch(until=within(6, lambda: runs.exists() and len(runs.read_text().split()) == 3))
    first, second, third = (float(moment) for moment in runs.read_text().split())
    assert 0.4 < second - first < third - second


def test_a_part_that_cannot_start_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_FIRST_DELAY", 0.01)

    class Reluctant(Program):
        failures = 0

        def start(self) -> None:
            if self._process is not None and self.failures < 2:
                self.failures += 1
                raise SpearError(Code.NOT_READY, "not yet")
            super().start()

    part = Reluctant("reluctant", ["/bin/sleep", "60"], env=ENV)
    with Supervisor() as parts:
        parts.add(part)
        first = part.pid
        assert first
        os.kill(first, signal.SIGKILL)
        parts.watch(until=within(5, lambda: part.running and part.pid != first))
        assert part.failures == 2
        assert part.running


def test_parts_stop_and_the_deaf_are_killed_with_their_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    deaf = f"import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.fork(); \
open({str(pids)!r}, 'a').write(f'{{os.getpid()}} '); time.sleep(60)"
    with Supervisor() as parts:
        polite, stubborn = shell("polite", "sleep 60"), python("stubborn", deaf, grace=0.2)
        parts.add(polite)
        parts.add(stubborn)
        parts.watch(until=within(5, lambda: pids.exists() and len(pids.read_text().split()) == 2))
        polite_pid = polite.pid
    assert polite_pid
    started = (polite_pid, *map(int, pids.read_text().split()))
    deadline = time.monotonic() + 5  # the kernel needs a moment for a killed process that is nobody's child any more
    while any(map(is_alive, started)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not [pid for pid in started if is_alive(pid)]


def test_a_part_is_asked_only_once_to_stop(tmp_path: Path) -> None:
    asked, ready = tmp_path / "asked", tmp_path / "ready"
    script = f"import signal, time; signal.signal(signal.SIGTERM, lambda *_: open({str(asked)!r}, 'a').write('x')); \
open({str(ready)!r}, 'w').close(); time.sleep(0.8)"
    with Supervisor() as parts:
        parts.add(python("counting", script))
        parts.watch(until=within(5, ready.exists))
    assert asked.read_text() == "x"


def test_parts_die_with_the_supervisor(tmp_path: Path) -> None:
    script = """
import os, sys, time
from app.local.supervisor import Program, Supervisor
parts = Supervisor()
part = Program("orphan", ["/bin/sleep", "60"], env=dict(os.environ))
parts.add(part)
os.write(3, f"{part.pid}\\n".encode())
time.sleep(60)
"""
    reading, writing = os.pipe()
    launcher = f"import os; os.dup2({writing}, 3)\n{script}"
    with subprocess.Popen([sys.executable, "-c", launcher], cwd=ROOT, pass_fds=[writing]) as owner:
        os.close(writing)
        with os.fdopen(reading) as pipe:
            child = int(pipe.readline())
        assert is_alive(child)
        owner.kill()
    deadline = time.monotonic() + 5
    while is_alive(child) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_alive(child)
