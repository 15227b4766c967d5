"""Jobs that are cancelled, workers and services that stop: the job ends right, with at most one commit.

Deaths at named points are in test_crash_points.py.
"""

import os
import signal
import time
from pathlib import Path

import pytest

from tests.fixtures.models import make_checkpoint
from tests.fixtures.service import Service, start_service, stop_service


@pytest.fixture(scope="module")
def slow_pair(service_server: Service, tmp_path_factory) -> tuple[str, str]:
    """A pair that nobody has downloaded yet: a slow Hub holds a job in its stage."""
    folder = tmp_path_factory.mktemp("slow")
    base = make_checkpoint(folder / "base", seed=21)
    adapted = make_checkpoint(folder / "adapted", seed=22, like=base)
    return service_server.push("slow-base", base), service_server.push("slow-adapted", adapted)


def held_in_download(service: Service, pair: tuple[str, str], target: str) -> str:
    """A job in the middle of a download that does not move."""
    service.hub.fault("slow", path=r"/slow-base/resolve/.*safetensors$", ranged=False, times=None, delay=60)
    with service.client() as client:
        job_id = client.submit(service.recipe(*pair, target))["id"]
    job = service.wait(job_id, until=lambda job: job["stage"] == "downloading")
    assert job["status"] == "running"
    return job_id


def test_a_running_job_is_cancelled_within_seconds_and_leaves_nothing(service, slow_pair):
    job_id = held_in_download(service, slow_pair, "cancelled")
    began = time.monotonic()
    with service.client() as client:
        assert client.cancel(job_id)["status"] == "cancelling"
        job = service.wait(job_id)
        assert client.cancel(job_id)["status"] == "cancelled"
    assert job["status"] == "cancelled"
    assert time.monotonic() - began < 10
    assert not service.hub.api(service.token).repo_exists(f"{service.user}/cancelled")
    assert not (service.home / "jobs" / job_id).exists()


@pytest.mark.parametrize("branch", ["main", "exp"])
def test_a_cancelled_upload_leaves_no_file_and_deletes_nothing(service, pair, branch):
    api, repo = service.hub.api(service.token), f"{service.user}/empty-{branch}"
    if branch != "main":
        api.create_repo(repo)
    service.hub.fault("slow", path=f"/empty-{branch}.git/info/lfs|/lfs/", times=None, delay=60)
    recipe = service.recipe(*pair, f"empty-{branch}", method={"name": "linear"})
    with service.client() as client:
        job_id = client.submit(recipe | {"target": {"repo": repo, "branch": branch}})["id"]
        job = service.wait(
            job_id, until=lambda job: api.repo_exists(repo) and branch in _branches(api, repo)
        )
        assert (job["status"], job["stage"]) == ("running", "publishing"), job["error"]
        client.cancel(job_id)
    assert service.wait(job_id)["status"] == "cancelled"
    assert api.list_repo_files(repo, revision=branch) == [".gitattributes"]
    assert _branches(api, repo) == sorted({"main", branch})
    assert not [asked for asked in service.hub.requests() if asked["method"] == "DELETE"]


def _branches(api, repo: str) -> list[str]:
    return sorted(branch.name for branch in api.list_repo_refs(repo).branches) if api.repo_exists(repo) else []


def test_a_worker_that_is_told_to_stop_hands_its_job_back(service, slow_pair):
    job_id = held_in_download(service, slow_pair, "drained")
    (worker,) = service.worker_pids()
    os.kill(worker, signal.SIGTERM)
    job = service.wait(job_id, until=lambda job: job["status"] == "queued")
    assert (job["status"], job["attempt"]) == ("queued", 0)
    service.hub.clear_faults()
    job = service.wait(job_id)
    assert (job["status"], job["attempt"]) == ("succeeded", 1)
    assert len(service.commits_of(job)) == 1


def test_a_worker_that_starts_clears_what_a_dead_one_has_left(service):
    """The worker that ended the job died before it had removed the directory, and no other job comes."""
    left = service.home / "jobs" / "mrg_01k00000000000000000000000"
    (left / "output").mkdir(parents=True)
    service.kill_workers()
    end = time.monotonic() + 30
    while left.exists() and time.monotonic() < end:
        time.sleep(0.2)
    assert not left.exists()


def test_a_paused_worker_that_wakes_up_spoils_nothing(service, slow_pair):
    job_id = held_in_download(service, slow_pair, "paused")
    (worker,) = service.worker_pids()
    frozen = [worker, *_descendants(worker)]
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    service.hub.clear_faults()
    try:
        service.wait(job_id, until=lambda job: job["status"] == "queued")
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
    job = service.wait(job_id)
    assert (job["status"], job["attempt"]) == ("succeeded", 2)
    assert service.commits_of(job) == [job["result"]["commit"]]


def test_a_killed_service_goes_on_where_it_was(local_hub, base_model, adapted_model, tmp_path):
    service = start_service(local_hub, tmp_path)
    pair = service.push("base", base_model), service.push("adapted", adapted_model)
    with service.client() as client:
        job_id = client.submit(service.recipe(*pair, "restored"))["id"]
    service.process.kill()
    service.process.wait()
    service.process.stdout.close()
    again = start_service(local_hub, tmp_path, account=(service.user, service.token))
    try:
        job = again.wait(job_id)
        assert job["status"] == "succeeded"
        assert again.commits_of(job) == [job["result"]["commit"]]
    finally:
        stop_service(again)


def test_a_restart_of_postgres_costs_no_attempt(local_hub, base_model, adapted_model, tmp_path):
    service = start_service(local_hub, tmp_path, SPEAR_LEASE_SECONDS="30")
    try:
        pair = service.push("slow-base", base_model), service.push("adapted", adapted_model)
        job_id = held_in_download(service, pair, "restored")
        (postgres,) = service.children(b"/bin/postgres")
        os.kill(postgres, signal.SIGQUIT)
        service.hub.clear_faults()
        job = service.wait(job_id)
        assert (job["status"], job["attempt"]) == ("succeeded", 1), job["error"]
        assert service.children(b"/bin/postgres") != [postgres]
    finally:
        stop_service(service)


def _descendants(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *_descendants(int(child))]
    return found
