"""Publishing under the lease: refusals end a job, doubts do not, and what an earlier attempt left is found."""

import hashlib
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import text

from app.errors import Code, SpearError
from app.hub.client import Hub
from app.hub.commits import find_commit, prepare
from app.hub.publish import publish
from app.jobs.leases import Lease, LeaseLostError, Leases
from app.recipes import Target
from app.settings import Settings
from tests.fixtures.checkpoints import checkpoint, push
from worker.crash import CrashPoints
from worker.heartbeat import Heartbeat
from worker.patience import Patience
from worker.progress import Progress
from worker.publishing import Publication

COMMIT = "/commit/main$"
ERROR = {"code": "hub_unavailable", "message": "the Hub was away", "stage": "publishing", "names": {"repo": "o/t"}}


class Bench:
    """One user's target, a folder to publish there, and attempts at jobs that do so, without a service."""

    def __init__(self, jobs, local_hub, folder: Path) -> None:
        self.jobs, self.server, self.folder = jobs, local_hub, folder
        name, token = local_hub.fresh_user("pub")
        self.hub = Hub(local_hub.endpoint, token, timeout_seconds=5)
        self.api = local_hub.api(token)
        self.target = Target(repo=f"{name}/restored")
        self.leases = Leases(jobs.database, seconds=60)
        self.settings = Settings(publish_seconds=20)
        for path, data in checkpoint(shards=2).items():
            (folder / path).write_bytes(data)
        self.parent = prepare(self.hub, self.target)

    def submit(self) -> str:
        recipe = {
            "base": {"repo": "o/b"}, "experts": [{"repo": "o/a"}], "method": {"name": "linear"},
            "target": {"repo": self.target.repo},
        }
        return self.jobs.submit(self.target.repo, recipe=recipe)

    def summary(self, job_id: str) -> dict:
        """The folder as the child leaves it, with a manifest of this job."""
        manifest = self.folder / "merge_manifest.json"
        manifest.unlink(missing_ok=True)
        files = {path.name: path.read_bytes() for path in self.folder.iterdir()}
        outputs = {
            name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()
        }
        manifest.write_text(json.dumps({"job": job_id, "outputs": outputs}))
        digest = hashlib.sha256(manifest.read_bytes()).hexdigest()
        return {"selected": 1, "scored": 2, "metrics": {}, "manifest_sha256": digest}

    def interrupt(self, job_id: str, *, seconds: float, attempts: int = 1) -> None:
        """Leave the row as a worker that died in a recorded publish does, once the sweep was there."""
        lease = self.claim(job_id)[1]
        self.leases.record_publishing(
            lease, parent=self.parent, manifest_sha256="0" * 64, summary=self.summary(job_id), seconds=seconds
        )
        self.leases.hand_back(lease, error=ERROR)
        self.jobs.execute("UPDATE jobs SET attempt = :n, version = version + 1 WHERE id = :id", n=attempts, id=job_id)

    def claim(self, job_id: str):
        job = self.leases.claim(job_id, owner="w")
        assert job is not None
        return job, Lease(job_id=job_id, token=job.lease_token)

    def attempt(self, job_id: str, *, crash: CrashPoints | None = None) -> Publication:
        job, lease = self.claim(job_id)
        crash = crash or CrashPoints("", attempt=1, target=None)
        heartbeat = Heartbeat(self.leases, lease, lease_seconds=60, stall_seconds=60, draining=lambda: False)
        return Publication(
            job, lease=lease, leases=self.leases, settings=self.settings, heartbeat=heartbeat, crash=crash,
            progress=Progress(self.leases, lease, patiently=Patience(seconds=20), crash=crash),
            patiently=Patience(seconds=20), abandon=lambda: None,
        )

    def publish(self, attempt: Publication, job_id: str) -> dict:
        return attempt.publish(self.hub, self.folder, summary=self.summary(job_id))

    def publish_late(self, job_id: str, after: float) -> threading.Thread:
        """An earlier attempt's worker that is still there, and sends its commit after so many seconds."""
        digest = self.summary(job_id)["manifest_sha256"]
        old = Hub(self.hub.endpoint, self.api.token, timeout_seconds=5)

        def send() -> None:
            publish(
                old, self.target, self.folder, job_id=job_id, title="late", manifest_sha256=digest, parent=self.parent,
                record=lambda _: time.sleep(after), check_lease=lambda: None, progress=lambda _: None,
                stop=lambda: False, deadline_seconds=20,
            )
            old.close()

        thread = threading.Thread(target=send)
        thread.start()
        return thread

    def commits(self, job_id: str) -> list[str]:
        found = self.api.list_repo_commits(self.target.repo)
        return [commit.commit_id for commit in found if f"Merge-Job: {job_id} " in commit.message]

    def events(self, job_id: str, kind: str) -> list[dict]:
        events = self.jobs.store.events(self.jobs.caller, job_id, after=0, limit=100)
        return [event.data for event in events if event.type == kind]


@pytest.fixture
def bench(jobs, local_hub, tmp_path):
    bench = Bench(jobs, local_hub, tmp_path)
    yield bench
    bench.hub.close()


def refused(code: Code, call) -> SpearError:
    with pytest.raises(SpearError) as caught:
        call()
    assert caught.value.code is code
    return caught.value


def test_a_publish_that_did_not_happen_is_forgotten_after_its_deadline(bench):
    job_id = bench.submit()
    bench.interrupt(job_id, seconds=-1)
    attempt = bench.attempt(job_id)
    assert attempt.reconcile(bench.hub) is None
    assert attempt.uncertain is False
    job = bench.jobs.get(job_id)
    assert (job.publishing, job.publish_deadline) == (None, None)
    assert len(bench.events(job_id, "publish.absent")) == 1
    assert bench.jobs.store.cancel(bench.jobs.caller, job_id).status == "cancelling"


class HoldsRow(CrashPoints):
    """Instead of a death at `publishing.packed`: somebody holds the job's row for longer than a write waits for it."""

    def __init__(self, bench: Bench, job_id: str) -> None:
        super().__init__("", attempt=1, target=None)
        self.bench, self.job_id, self.held = bench, job_id, threading.Event()
        self.thread = threading.Thread(target=self.hold)

    def reach(self, name: str) -> None:
        if name == "publishing.packed":
            self.thread.start()
            self.held.wait()

    def hold(self) -> None:
        with self.bench.jobs.database.transaction() as session:
            session.execute(text("SELECT 1 FROM jobs WHERE id = :id FOR UPDATE"), {"id": self.job_id})
            self.held.set()
            time.sleep(6)


def test_a_database_that_is_away_for_seconds_costs_no_publish(bench):
    job_id = bench.submit()
    trouble = HoldsRow(bench, job_id)
    result = bench.publish(bench.attempt(job_id, crash=trouble), job_id)
    trouble.thread.join()
    assert bench.commits(job_id) == [result["commit"]]
    assert len(bench.events(job_id, "publish.started")) == 1


def test_a_publish_is_not_forgotten_before_its_deadline(bench):
    job_id = bench.submit()
    bench.interrupt(job_id, seconds=60)
    attempt = bench.attempt(job_id)
    assert attempt.reconcile(bench.hub) is None
    assert attempt.uncertain is True
    assert bench.jobs.get(job_id).publishing["parent"] == bench.parent
    result = bench.publish(attempt, job_id)
    assert bench.commits(job_id) == [result["commit"]]


def test_a_job_beyond_its_attempts_waits_for_the_deadline_and_ends(bench):
    job_id = bench.submit()
    bench.interrupt(job_id, seconds=2, attempts=3)
    attempt = bench.attempt(job_id)
    begin = time.monotonic()
    error = refused(Code.HUB_UNAVAILABLE, lambda: attempt.reconcile(bench.hub))
    assert time.monotonic() - begin > 1
    assert (error.message, error.names) == ("the Hub was away", {"repo": "o/t"})
    assert attempt.uncertain is False
    assert bench.jobs.get(job_id).publishing is None


def test_a_job_beyond_its_attempts_succeeds_if_its_commit_lands_before_the_deadline(bench):
    job_id = bench.submit()
    bench.interrupt(job_id, seconds=4, attempts=3)
    attempt = bench.attempt(job_id)
    late = bench.publish_late(job_id, after=1)
    assert attempt.reconcile(bench.hub)["commit"] == bench.commits(job_id)[0]
    late.join()


def test_a_refusal_is_final_when_nobody_else_can_publish(bench):
    job_id = bench.submit()
    attempt = bench.attempt(job_id)
    bench.server.fault("status", path=COMMIT, method="POST", status=403)
    refused(Code.REPO_ACCESS_DENIED, lambda: bench.publish(attempt, job_id))
    assert attempt.uncertain is False
    assert bench.jobs.get(job_id).publishing is not None


def test_a_refusal_is_final_only_after_an_earlier_attempts_deadline(bench):
    job_id = bench.submit()
    bench.interrupt(job_id, seconds=2)
    attempt = bench.attempt(job_id)
    assert attempt.reconcile(bench.hub) is None
    bench.server.fault("status", path=COMMIT, method="POST", status=403)
    begin = time.monotonic()
    refused(Code.REPO_ACCESS_DENIED, lambda: bench.publish(attempt, job_id))
    assert time.monotonic() - begin > 0.5
    assert attempt.uncertain is False


def test_after_a_refusal_the_earlier_attempts_commit_may_still_land(bench):
    job_id = bench.submit()
    bench.interrupt(job_id, seconds=5)
    attempt = bench.attempt(job_id)
    summary = bench.summary(job_id)
    bench.server.fault("status", path=COMMIT, method="POST", status=403)
    late = bench.publish_late(job_id, after=2.5)
    result = attempt.publish(bench.hub, bench.folder, summary=summary)
    late.join()
    assert bench.commits(job_id) == [result["commit"]]


def test_a_wrong_commit_ends_the_job(bench):
    job_id = bench.submit()
    bench.interrupt(job_id, seconds=60)
    bench.api.create_commit(
        bench.target.repo, _addition(), commit_message="x", commit_description=f"Merge-Job: {job_id} {'0' * 64}"
    )
    attempt = bench.attempt(job_id)
    refused(Code.VERIFICATION_FAILED, lambda: attempt.reconcile(bench.hub))
    assert attempt.uncertain is False


def test_an_unclear_end_keeps_the_job_open(bench):
    job_id = bench.submit()
    bench.interrupt(job_id, seconds=-1)
    attempt = bench.attempt(job_id)
    bench.server.fault("status", path="/refs$", status=403, times=None)
    refused(Code.HUB_UNAVAILABLE, lambda: attempt.reconcile(bench.hub))
    assert attempt.uncertain is True


def test_nothing_is_published_once_a_cancellation_was_asked_for(bench):
    job_id = bench.submit()
    attempt = bench.attempt(job_id)
    bench.jobs.store.cancel(bench.jobs.caller, job_id)
    with pytest.raises(LeaseLostError):
        bench.publish(attempt, job_id)
    assert bench.jobs.get(job_id).publishing is None
    assert bench.commits(job_id) == []


def test_the_clock_begins_before_the_record(bench):
    job_id = bench.submit()
    attempt = bench.attempt(job_id)
    seen = []
    attempt._record(
        bench.parent, summary=bench.summary(job_id),
        start_clock=lambda: seen.append(bench.jobs.get(job_id).publishing),
    )
    assert seen == [None]
    assert bench.jobs.get(job_id).publishing is not None


def test_a_commit_that_lands_after_its_job_has_failed_is_told_by_the_next_job(bench):
    old = bench.submit()
    bench.interrupt(old, seconds=-1)
    job, lease = bench.claim(old)
    bench.leases.forget_publishing(lease)
    bench.leases.settle(lease, "failed", error=ERROR)
    bench.publish_late(old, after=0).join()
    new = bench.submit()
    bench.publish(bench.attempt(new), new)
    (told,) = bench.events(old, "publish.late")
    assert told["commit"] == find_commit(bench.hub, bench.target, old)
    assert bench.jobs.get(old).status == "failed"
    assert bench.leases.sought_in_vain(job) == []
    assert len(bench.commits(old)) == len(bench.commits(new)) == 1


FORCED = """
import threading, time
from sqlalchemy.exc import OperationalError
from worker.force import stopped_by_force
from worker.heartbeat import Heartbeat
def settle():
    print("settled", flush=True)
    raise OperationalError("", {}, Exception())
heartbeat = Heartbeat(None, None, lease_seconds=9, stall_seconds=9, draining=lambda: True)
recorded, lock = [], threading.Lock()
with stopped_by_force(heartbeat, abandon=settle, too_late=lambda: recorded, lock=lock, patience_seconds=0.5):
    with lock:
        time.sleep(0.4)
        recorded += [1] * %d
    time.sleep(1.5)
"""


@pytest.mark.parametrize(("recorded", "status", "output"), [(0, 75, "settled\n"), (1, 0, "")])
def test_a_process_that_has_to_stop_ends_unless_it_has_recorded_meanwhile(recorded, status, output):
    done = subprocess.run(
        [sys.executable, "-c", FORCED % recorded], capture_output=True, text=True, check=False,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (status, output.splitlines()), done.stderr


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [("/{target}/commit/main$", 403, "repo_access_denied"), ("/api/validate-yaml$", 400, "hub_refused")],
)
def test_a_refusal_ends_the_job_and_frees_its_target(service, pair, path, status, code):
    target = f"refused-{status}"
    service.hub.fault("status", path=path.format(target=target), method="POST", status=status, times=None)
    job = service.run(service.recipe(*pair, target))
    assert (job["status"], job["error"]["code"], job["attempt"]) == ("failed", code, 1), job["error"]
    service.hub.clear_faults()
    again = service.run(service.recipe(*pair, target))
    assert again["status"] == "succeeded", again["error"]
    assert service.commits_of(job) == []


def test_a_target_with_files_of_any_name_is_published_to(service, pair):
    api = service.hub.api(service.token)
    push(api, f"{service.user}/odd", {"what is this?.md": b"1"})
    job = service.run(service.recipe(*pair, "odd"))
    assert job["status"] == "succeeded", job["error"]
    assert "what is this?.md" in api.list_repo_files(f"{service.user}/odd")


def _addition():
    from huggingface_hub import CommitOperationAdd

    return [CommitOperationAdd("merge_manifest.json", b"{}")]
