"""Jobs that kill whatever works on them: they end as failed with the reason, and nobody else's job is harmed.

What a poisonous model would do to the computing child is done to it from outside here, by the kernel's own means, to
every child of the job: it crashes, is killed as if memory had run out, hangs, finds no room for its files, or says
nonsense. One more loses its worker in every attempt.
"""

import os
import resource
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.fixtures.service import Service, start_service, stop_service

STALL_SECONDS = 12


def crash(pid: int) -> None:
    os.kill(pid, signal.SIGSEGV)


def run_out_of_memory(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def hang(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)


def fill_the_disk(pid: int) -> None:
    """No file may grow beyond 4 kB, which is a quota as a process feels it."""
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, 4096))


def talk_nonsense(pid: int) -> None:
    """Into the child's own pipe, as a library could that writes to a wrong descriptor."""
    pipe = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[-2].decode()
    Path(f"/proc/{pid}/fd/{pipe}").write_bytes(b"\xff{what?\n")


POISONS = {
    "crash": (crash, "compute_crashed", "segmentation fault"),
    "memory": (run_out_of_memory, "out_of_memory", "memory"),
    "hang": (hang, "stalled", f"{STALL_SECONDS} seconds"),
    "disk": (fill_the_disk, "disk_full", "no room"),
    "nonsense": (talk_nonsense, "compute_crashed", "unintelligible"),
}


class Poisoner(threading.Thread):
    """Does to every child of these jobs what their poison is."""

    def __init__(self, poisons) -> None:
        super().__init__(daemon=True)
        self.poisons = poisons
        self.over = threading.Event()
        self.done: dict[int, str] = {}

    def run(self) -> None:
        while not self.over.wait(0.01):
            for process in Path("/proc").glob("[0-9]*"):
                self.look(process)

    def look(self, process: Path) -> None:
        try:
            command = (process / "cmdline").read_bytes()
            job_id = next((job_id for job_id in self.poisons if job_id.encode() in command), None)
            ready = b"worker.pipeline" in command and b"torch" in (process / "maps").read_bytes()
            if job_id and ready and int(process.name) not in self.done:
                self.done[int(process.name)] = job_id
                self.poisons[job_id](int(process.name))
        except (OSError, IndexError):
            pass  # it has ended meanwhile


@pytest.fixture(scope="module")
def poisoned(local_hub_server, base_model, adapted_model, tmp_path_factory):
    """A service with two workers, and the jobs when all have ended."""
    account = local_hub_server.fresh_user()
    crash_at = ",".join(f"scoring.begun@{attempt}:{account[0]}/worker" for attempt in (1, 2, 3))
    service = start_service(
        local_hub_server, tmp_path_factory.mktemp("poison"), workers=2, account=account, SPEAR_CRASH_AT=crash_at,
        SPEAR_STALL_SECONDS=str(STALL_SECONDS), SPEAR_LEASE_SECONDS="4",
    )
    pair = service.push("base", base_model), service.push("adapted", adapted_model)
    ids: dict[str, str] = {}
    poisons: dict[str, object] = {}
    poisoner = Poisoner(poisons)
    poisoner.start()
    with service.client() as client:
        for name in (*POISONS, "worker", "healthy-1", "healthy-2", "healthy-3"):
            ids[name] = client.submit(service.recipe(*pair, name))["id"]
            if name in POISONS:
                poisons[ids[name]] = POISONS[name][0]
    try:
        yield service, {name: service.wait(job_id, timeout=200) for name, job_id in ids.items()}, poisoner
    finally:
        poisoner.over.set()
        poisoner.join()
        stop_service(service)


@pytest.mark.parametrize("name", POISONS)
def test_a_poisonous_job_fails_after_its_attempts_and_says_why(poisoned, name):
    _, jobs, poisoner = poisoned
    job, (_, code, words) = jobs[name], POISONS[name]
    assert (job["status"], job["attempt"], job["error"]["code"]) == ("failed", 3, code), job["error"]
    assert words in job["error"]["message"]
    assert list(poisoner.done.values()).count(job["id"]) == 3


def test_a_job_whose_worker_dies_in_each_attempt_fails_and_says_why(poisoned):
    job = poisoned[1]["worker"]
    assert (job["status"], job["attempt"], job["error"]["code"]) == ("failed", 3, "worker_lost"), job["error"]
    assert "scoring" in job["error"]["message"]


def test_the_others_are_not_harmed(poisoned):
    service, jobs, _ = poisoned
    for name in ("healthy-1", "healthy-2", "healthy-3"):
        assert jobs[name]["status"] == "succeeded", jobs[name]["error"]
        assert service.commits_of(jobs[name]) == [jobs[name]["result"]["commit"]]


def test_nothing_of_them_is_published_or_left_behind(poisoned):
    service, jobs, _ = poisoned
    api = service.hub.api(service.token)
    assert not [name for name in (*POISONS, "worker") if api.repo_exists(f"{service.user}/{name}")]
    end = time.monotonic() + 15
    while any((service.home / "jobs").iterdir()) and time.monotonic() < end:
        time.sleep(0.1)
    assert list((service.home / "jobs").iterdir()) == []
    assert not _alive(service, jobs)


def _alive(service: Service, jobs) -> list[str]:
    commands = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            commands.append((process / "cmdline").read_bytes())
        except OSError:
            continue
    return [name for name, job in jobs.items() if any(job["id"].encode() in command for command in commands)]
