"""A worker whose files cannot grow any more: the job fails with `disk_full`, leaves nothing, and its retry succeeds.

The room is taken by the kernel's own limit on the size of a file (RLIMIT_FSIZE), set on the running worker: its inputs
are shards that fit, its output is one file that does not.
"""

import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.models import make_checkpoint
from tests.fixtures.service import Service, start_service, stop_service

LIMIT = 1_500_000
SHARD = 600_000


@pytest.fixture(scope="module")
def narrow(local_hub_server, tmp_path_factory) -> Iterator[Service]:
    """A service of its own: its worker's limits are changed."""
    service = start_service(local_hub_server, tmp_path_factory.mktemp("narrow"), SPEAR_MAX_ATTEMPTS="1")
    yield service
    stop_service(service)


def family(pid: int) -> list[int]:
    """A process and all below it."""
    below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(found for child in below for found in family(int(child)))]


def limit(service: Service, size: int) -> None:
    """No process of the workers may write a file beyond so many bytes; only the soft limit is touched."""
    for worker in service.worker_pids():
        for pid in family(worker):
            _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))


def left_over(service: Service) -> list[Path]:
    """Files of jobs, and parts of downloads."""
    folders = (service.home / "jobs", service.home / "cache" / "parts")
    return [path for folder in folders for path in folder.rglob("*") if path.is_file()]


def test_a_full_disk_fails_the_job_and_its_retry_succeeds(narrow: Service, tmp_path):
    base = make_checkpoint(tmp_path / "base", seed=41, hidden=256, max_shard_size=SHARD)
    expert = make_checkpoint(tmp_path / "expert", seed=42, like=base, max_shard_size=SHARD)
    assert max(path.stat().st_size for path in base.glob("*.safetensors")) < LIMIT
    pair = narrow.push("full-base", base), narrow.push("full-expert", expert)
    recipe = narrow.recipe(*pair, "full-merged", method={"name": "linear"})
    workers = narrow.worker_pids()
    limit(narrow, LIMIT)
    job = narrow.run(recipe)
    assert (job["status"], job["error"]["code"], job["error"]["stage"]) == ("failed", "disk_full", "merging"), job
    assert "model.safetensors" in job["error"]["message"]
    end = time.monotonic() + 10
    while left_over(narrow):
        assert time.monotonic() < end, left_over(narrow)
        time.sleep(0.05)
    assert not narrow.hub.api(narrow.token).repo_exists(f"{narrow.user}/full-merged")
    limit(narrow, resource.RLIM_INFINITY)
    with narrow.client() as client:
        again = narrow.wait(client.retry(job["id"])["id"])
    assert (again["status"], again["retry_of"]) == ("succeeded", job["id"]), again["error"]
    assert narrow.commits_of(again) == [again["result"]["commit"]]
    assert narrow.worker_pids() == workers
