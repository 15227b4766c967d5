"""A backup taken in the middle of the work, restored into a new database: no job is lost, none is published twice."""

import subprocess

import pytest

from app.local.binaries import postgres_programs
from tests.fixtures.models import make_checkpoint
from tests.fixtures.service import start_service, stop_service


@pytest.fixture(scope="module")
def programs():
    return postgres_programs(None)


def test_dump_restore_go_on(
    local_hub, base_model, adapted_model, tmp_path, database_url, empty_database_url, programs
):
    service = start_service(local_hub, tmp_path, SPEAR_DATABASE_URL=database_url)
    pair = service.push("base", base_model), service.push("adapted", adapted_model)
    slow = service.push("slow-base", make_checkpoint(tmp_path / "slow", seed=31))  # not in the cache yet
    before = service.run(service.recipe(*pair, "before"))
    assert before["status"] == "succeeded", before["error"]
    local_hub.fault("slow", path=r"/slow-base/resolve/.*safetensors$", ranged=False, times=None, delay=60)
    with service.client() as client:
        held = client.submit(service.recipe(slow, pair[1], "held", method={"name": "linear"}))["id"]
        job = service.wait(held, until=lambda job: job["status"] == "running")
        queued = client.submit(service.recipe(*pair, "queued"))["id"]
    assert job["status"] == "running"
    dump = tmp_path / "dump"
    _run(programs / "pg_dump", "--format=custom", f"--file={dump}", f"--dbname={_plain(database_url)}")
    local_hub.clear_faults()
    ended = {job_id: service.wait(job_id) for job_id in (held, queued)}  # all published after the backup
    stop_service(service)

    _run(programs / "pg_restore", "--exit-on-error", "--no-owner", f"--dbname={_plain(empty_database_url)}", str(dump))
    again = start_service(
        local_hub, tmp_path, account=(service.user, service.token), SPEAR_DATABASE_URL=empty_database_url
    )
    try:
        with again.client() as client:
            assert client.get(before["id"])["result"] == before["result"]
        for job_id, old in ended.items():
            job = again.wait(job_id)
            assert job["status"] == "succeeded", job["error"]
            assert again.commits_of(job) == [job["result"]["commit"]] == [old["result"]["commit"]]
        assert again.run(service.recipe(*pair, "after"))["status"] == "succeeded"
    finally:
        stop_service(again)


def _plain(url: str) -> str:
    return url.replace("+psycopg", "", 1)


def _run(*command) -> None:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
