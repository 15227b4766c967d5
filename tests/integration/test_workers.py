"""Which workers live and what each does, as an administrator sees it."""

import os
import signal
import time

import pytest

from app.jobs.workers import Badge, State, Workers


def badge(name: str, *, pid: int = 1) -> Badge:
    return Badge(name=name, owner=f"host:{pid}", host="host", pid=pid, version="0.1.0", device="cpu")


def test_a_worker_is_idle_busy_lost_and_stopped(jobs):
    workers = Workers(jobs.database, lost_seconds=60)
    workers.arrive(badge("w@host"))
    [seen] = workers.find()
    assert (seen.name, seen.state, seen.job_id) == ("w@host", State.IDLE, None)
    job_id = jobs.submit()
    lease = jobs.leases.claim(job_id, owner="host:1")
    jobs.leases.begin_stage(_lease(job_id, lease), "merging")
    [seen] = workers.find()
    assert (seen.state, seen.job_id, seen.kind, seen.stage) == (State.BUSY, job_id, "merge", "merging")
    assert seen.since is not None
    jobs.execute("UPDATE workers SET started_at = now() - interval '2 min', seen_at = now() - interval '2 min'")
    assert workers.find()[0].state is State.LOST
    assert workers.beat(badge("w@host"))
    assert workers.find()[0].state is State.BUSY
    workers.leave("w@host")
    assert workers.find()[0].state is State.STOPPED


def _lease(job_id, job):
    from app.jobs.leases import Lease

    return Lease(job_id=job_id, token=job.lease_token)


def test_a_successor_takes_the_row_and_the_old_process_hears_of_it(jobs):
    workers = Workers(jobs.database, lost_seconds=60)
    workers.arrive(badge("w@host", pid=1))
    workers.arrive(badge("w@host", pid=2))
    assert not workers.beat(badge("w@host", pid=1))
    assert [seen.pid for seen in workers.find()] == [2]


def test_those_long_gone_are_forgotten(jobs):
    workers = Workers(jobs.database, lost_seconds=60)
    workers.arrive(badge("old"))
    jobs.execute("UPDATE workers SET started_at = now() - interval '8 days', seen_at = now() - interval '8 days'")
    workers.arrive(badge("new"))
    assert workers.forget() == 1
    assert [seen.name for seen in workers.find()] == ["new"]


def test_administrators_see_them_and_nobody_else(api):
    Workers(api.services.database, lost_seconds=60).arrive(badge("w@host"))
    admin = api.services.keys.create(name="root", scopes=("admin",))
    [seen] = api.call("GET", "/workers", key=admin).json()["data"]
    assert (seen["name"], seen["state"], seen["version"], seen["device"]) == ("w@host", "idle", "0.1.0", "cpu")
    assert api.call("GET", "/workers").status_code == 403


def test_a_real_worker_says_that_it_is_there_and_that_it_leaves(jobs, redis_url, tmp_path):
    process = start(jobs, redis_url, tmp_path)
    workers = Workers(jobs.database, lost_seconds=5)
    try:
        seen = until(lambda: next(iter(workers.find()), None))
        assert seen.name.startswith("spear-worker-7@")
        assert seen.state is State.IDLE
        assert seen.device == "cpu"
        assert seen.pid != process.pid, "it is the pool's process that works, and that leases bear"
        os.kill(seen.pid, signal.SIGKILL)
        again = until(lambda: next((one for one in workers.find() if one.pid != seen.pid), None))
        assert again.started_at > seen.started_at
    finally:
        process.terminate()
        assert process.wait(20) == 0
    assert until(lambda: workers.find()[0].state is State.STOPPED)
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) > 3
    assert [line for line in lines if not line.startswith('{"')] == []


def start(jobs, redis_url, tmp_path):
    import subprocess
    import sys

    url = jobs.database.engine.url.render_as_string(hide_password=False)
    own = {"SPEAR_DATABASE_URL": url, "SPEAR_REDIS_URL": redis_url, "SPEAR_DATA_DIR": str(tmp_path / "data"),
           "SPEAR_DEVICE": "cpu", "SPEAR_LEASE_SECONDS": "2"}  # fmt: skip
    command = [sys.executable, "-P", "-m", "worker", "--name", "spear-worker-7"]
    with (tmp_path / "log").open("wb") as log:
        return subprocess.Popen(command, env={**os.environ, **own}, stderr=log)


def until(look, *, seconds: float = 30):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.1)
    pytest.fail("it did not come to that")
