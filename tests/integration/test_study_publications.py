"""What a study publishes is submitted while it runs, and never after its cancellation was confirmed."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from app.jobs.leases import Lease, LeaseLostError, hold_running
from app.jobs.states import Kind, Status
from app.recipes import parse_study
from app.settings import Settings
from worker.cells import submit_cells

REPOS = ("org/one", "org/two")


def study():
    publish = [{"experts": [repo], "method": "linear", "target": {"repo": f"{repo}-merged"}} for repo in REPOS]
    return parse_study({
        "base": {"repo": "org/base"}, "experts": [{"repo": repo} for repo in REPOS],
        "methods": [{"method": {"name": "linear"}}], "stages": [1], "publish": publish,
        "evaluation": {"domain": [{"task": "arc_easy"}]},
    })  # fmt: skip


@pytest.fixture
def running(jobs, database_url):
    """A study that has come to its publications: its job, lease, and the submission."""
    asked = study()
    resolved = {"base": {"repo": "org/base", "commit": "0" * 40},
                "experts": [{"repo": repo, "commit": "1" * 40} for repo in REPOS]}  # fmt: skip
    recipe = asked.model_dump(mode="json")
    job_id = jobs.submit(None, target_branch=None, kind=Kind.STUDY, recipe=recipe, resolved=resolved)
    job = jobs.leases.claim(job_id, owner="w")
    lease = Lease(job_id=job_id, token=job.lease_token)
    report = {"publications": [
        {"key": cell.key, "target": one.target.repo, "branch": "main"}
        for one, cell in zip(asked.publish, asked.cells(), strict=True)
    ]}  # fmt: skip
    settings = Settings(database_url=database_url)
    return lease, lambda: submit_cells(job, asked, report, lease=lease, database=jobs.database, settings=settings)


def merges(jobs):
    return jobs.store.find(jobs.caller, limit=10)


def test_a_running_study_submits_each_publication_once(jobs, running):
    _, submit = running
    told = submit()
    assert [one["target"] for one in told] == ["org/one-merged", "org/two-merged"]
    assert {one["job"] for one in told} == {job.id for job in merges(jobs)}
    assert [one["job"] for one in submit()] == [one["job"] for one in told]


def test_a_study_whose_cancellation_is_confirmed_submits_nothing(jobs, running):
    lease, submit = running
    assert jobs.leases.look(lease) is Status.RUNNING  # the heartbeat's last look
    assert jobs.store.cancel(jobs.caller, lease.job_id, kind=Kind.STUDY).status == Status.CANCELLING
    with pytest.raises(LeaseLostError):
        submit()
    assert merges(jobs) == []
    jobs.leases.settle(lease, Status.CANCELLED)


def test_a_study_of_another_worker_submits_nothing(jobs, running):
    lease, submit = running
    jobs.execute("UPDATE jobs SET lease_token = lease_token + 1, version = version + 1 WHERE id = :id", id=lease.job_id)
    with pytest.raises(LeaseLostError):
        submit()
    assert merges(jobs) == []


def test_a_cancellation_waits_for_the_submission_that_is_under_way(jobs, running):
    lease, submit = running
    with ThreadPoolExecutor(1) as pool:
        with jobs.database.transaction() as session:
            hold_running(session, lease)
            cancelled = pool.submit(jobs.store.cancel, jobs.caller, lease.job_id, kind=Kind.STUDY)
            with pytest.raises(TimeoutError):
                cancelled.result(timeout=0.3)
        assert cancelled.result(timeout=5).status == Status.CANCELLING
    with pytest.raises(LeaseLostError):
        submit()
