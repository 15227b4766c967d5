"""Where workers die on demand, and how long a stage may be without progress."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from app.settings import Settings
from worker.crash import POINTS, STAGES

WORKER = """
import os, sys, time
from worker.crash import CrashPoints
if os.fork():
    time.sleep(20)  # the Celery worker, killed with its pool's process
else:
    points = CrashPoints(sys.argv[1], attempt=2, target="org/a")
    for name in ("scoring.begun", "merging.step", "merging.step", "settled"):
        points.reach(name)
        os.write(1, name.encode() + b" ")
    os.kill(os.getppid(), 15)
"""


@pytest.mark.parametrize(
    ("setting", "reached", "status"),
    [
        ("", "scoring.begun merging.step merging.step settled ", signal.SIGTERM),
        ("scoring.begun@1:org/a,settled@2:org/b", "scoring.begun merging.step merging.step settled ", signal.SIGTERM),
        ("scoring.begun@2:org/a", "", signal.SIGKILL),
        ("merging.step#2@2:org/a", "scoring.begun merging.step ", signal.SIGKILL),
        ("settled@2:*", "scoring.begun merging.step merging.step ", signal.SIGKILL),
    ],
)
def test_a_worker_dies_where_it_is_told_to(setting, reached, status):
    root = Path(__file__).resolve().parents[2]
    argv = [sys.executable, "-c", WORKER, setting]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=root, check=False)
    assert (done.stdout, done.returncode) == (reached, -status), done.stderr


def test_there_is_a_point_at_each_stage_and_enough_of_them():
    assert len(set(POINTS)) == len(POINTS) >= 25
    for stage in STAGES:
        assert {f"{stage}.begun", f"{stage}.done"} <= set(POINTS)


def test_a_stage_may_have_a_shorter_limit_of_its_own_never_a_longer_one():
    settings = Settings(stall_seconds=100, stage_stall_seconds={"scoring": 5, "merging": 500})
    assert [settings.stall_seconds_of(stage) for stage in ("scoring", "merging", "verifying")] == [5, 100, 100]
