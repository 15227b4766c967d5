"""Deadlines in the running service: too slow, too late, and too far to be cut off."""

import pytest

from tests.fixtures.models import make_checkpoint
from tests.fixtures.service import Service


@pytest.fixture(scope="module")
def fresh_pair(service_server: Service, tmp_path_factory) -> tuple[str, str]:
    """A pair that nobody has downloaded yet: a slow Hub holds a job in its stage."""
    folder = tmp_path_factory.mktemp("late")
    base = make_checkpoint(folder / "base", seed=41)
    adapted = make_checkpoint(folder / "adapted", seed=42, like=base)
    return service_server.push("late-base", base), service_server.push("late-adapted", adapted)


def test_a_job_is_ended_at_its_deadline_and_one_behind_it_at_its_own(service, pair, fresh_pair):
    service.hub.fault("slow", path=r"/late-base/resolve/.*safetensors$", ranged=False, times=None, delay=60)
    with service.client() as client:
        slow = client.submit(service.recipe(*fresh_pair, "too-slow", max_runtime_seconds=6))["id"]
        job = service.wait(slow, until=lambda job: job["stage"] == "downloading")
        assert job["status"] == "running", job["error"]
        late = client.submit(service.recipe(*pair, "too-late", max_queue_seconds=1))["id"]
        behind = client.submit(service.recipe(*pair, "behind", method={"name": "linear"}))["id"]
    late_job, slow_job = service.wait(late), service.wait(slow)
    assert (late_job["status"], late_job["error"]["code"], late_job["attempt"]) == ("failed", "queue_expired", 0)
    assert (slow_job["status"], slow_job["error"]["code"], slow_job["attempt"]) == ("failed", "runtime_exceeded", 1)
    assert slow_job["error"]["stage"] == "downloading"
    service.hub.clear_faults()
    after = service.wait(behind)
    assert after["status"] == "succeeded", after["error"]
    assert not service.hub.api(service.token).repo_exists(f"{service.user}/too-slow")


def test_a_publish_that_was_recorded_is_not_cut_off_by_the_deadline(service, pair):
    service.hub.fault("slow", path="/uncut/commit/main$", method="POST", delay=22)
    job = service.run(service.recipe(*pair, "uncut", method={"name": "linear"}, max_runtime_seconds=20))
    assert job["status"] == "succeeded", job["error"]
    assert service.commits_of(job) == [job["result"]["commit"]]
