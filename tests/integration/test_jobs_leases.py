"""Claims, fences, rescue: what keeps a job from being lost or done twice."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from app.jobs.changes import NewEvent
from app.jobs.database import DatabaseAway
from app.jobs.leases import Lease, LeaseLostError, Leases
from app.jobs.order import PAUSE_SECONDS, next_job
from app.jobs.states import Status
from tests.fixtures.jobs import LEASE_SECONDS
from worker.workspace import clear

ERROR = {"code": "hub_unavailable", "message": "gone", "stage": None, "retryable": True, "hint": "", "names": {}}


def claim(jobs, job_id: str) -> Lease:
    job = jobs.leases.claim(job_id, owner="w")
    assert job is not None
    return Lease(job_id=job_id, token=job.lease_token)


def test_of_many_claims_one_wins(jobs):
    job_id = jobs.submit()
    leases = Leases(jobs.database, seconds=60)  # a short one may run out before the last has asked
    with ThreadPoolExecutor(8) as pool:
        won = [job for job in pool.map(lambda i: leases.claim(job_id, owner=f"w{i}"), range(16)) if job]
    assert len(won) == 1
    assert (won[0].status, won[0].attempt, won[0].lease_token) == ("running", 1, 1)


def test_an_expired_lease_can_be_taken_and_the_old_token_writes_nothing(jobs):
    job_id = jobs.submit()
    old = claim(jobs, job_id)
    time.sleep(LEASE_SECONDS * 1.5)
    new = claim(jobs, job_id)
    assert new.token == old.token + 1
    writes = [
        lambda: jobs.leases.renew(old), lambda: jobs.leases.look(old),
        lambda: jobs.leases.begin_stage(old, "scoring"), lambda: jobs.leases.report(old, progress={"percent": 1}),
        lambda: jobs.leases.record_publishing(old, parent="p", manifest_sha256="m", summary={}, seconds=1),
        lambda: jobs.leases.settle(old, Status.SUCCEEDED, result={}), lambda: jobs.leases.hand_back(old),
        lambda: jobs.leases.put_documents(old, {"scores": {}}),
    ]  # fmt: skip
    before = jobs.get(job_id)
    for write in writes:
        with pytest.raises(LeaseLostError):
            write()
    after = jobs.get(job_id)
    assert (after.version, after.event_seq, after.status) == (before.version, before.event_seq, "running")


def test_a_renewed_lease_is_not_taken(jobs):
    lease = claim(jobs, jobs.submit())
    for _ in range(5):
        time.sleep(LEASE_SECONDS / 2)
        assert jobs.leases.renew(lease) is Status.RUNNING
        assert jobs.leases.claim(lease.job_id, owner="thief") is None


def test_the_sweep_requeues_an_orphan_and_ends_it_after_its_attempts(jobs):
    job_id = jobs.submit()
    for attempt in (1, 2, 3):
        assert jobs.leases.claim(job_id, owner=f"w{attempt}").attempt == attempt
        jobs.leases.begin_stage(Lease(job_id=job_id, token=jobs.get(job_id).lease_token), "scoring")
        time.sleep(LEASE_SECONDS * 1.2)
        assert jobs.rescue.sweep() == [job_id]  # to go on, or at the end so that a worker clears its directory
    job = jobs.get(job_id)
    assert (job.status, job.error["code"], job.error["stage"]) == ("failed", "worker_lost", "scoring")
    assert "w3" in job.error["message"]
    stages = jobs.store.stages([job_id])[job_id]
    assert [stage.attempt for stage in stages] == [1, 2, 3]
    assert all(stage.ended_at for stage in stages)


def test_a_queued_job_is_announced_again_only_after_a_while(jobs):
    job_id = jobs.submit()
    assert jobs.rescue.sweep() == []
    jobs.execute("UPDATE jobs SET announced_at = now() - interval '31 seconds', version = version + 1")
    assert jobs.rescue.sweep(waiting=1) == []  # its message is still with the broker
    assert jobs.rescue.sweep() == [job_id]
    assert jobs.rescue.sweep() == []


def test_neither_a_heartbeat_nor_an_announcement_changes_the_version(jobs):
    job_id = jobs.submit()
    jobs.execute("UPDATE jobs SET announced_at = now() - interval '1 hour'")
    before = jobs.get(job_id).version
    assert jobs.rescue.sweep() == [job_id]
    assert jobs.get(job_id).version == before
    lease = claim(jobs, job_id)
    before = jobs.get(job_id).version
    jobs.leases.renew(lease)
    assert jobs.get(job_id).version == before


def test_a_drained_job_is_announced_by_the_next_sweep(jobs):
    job_id = jobs.submit()
    jobs.leases.hand_back(claim(jobs, job_id), charge=False)
    assert jobs.rescue.sweep() == [job_id]


def test_a_job_that_nobody_could_claim_is_not_queued_but_ended(jobs):
    job_id = jobs.submit()
    for _ in range(2):
        jobs.leases.hand_back(claim(jobs, job_id), error=ERROR)
    jobs.leases.hand_back(claim(jobs, job_id), charge=False)
    last = claim(jobs, job_id)
    with pytest.raises(LeaseLostError):
        jobs.leases.hand_back(last, error=ERROR)
    time.sleep(LEASE_SECONDS * 1.2)
    assert jobs.rescue.sweep() == [job_id]
    assert jobs.get(job_id).status == "failed"


@pytest.mark.parametrize(
    "trouble", ["SET LOCAL idle_in_transaction_session_timeout = '100ms'", "SET TRANSACTION READ ONLY"],
    ids=["paused", "failed over"],
)  # fmt: skip
def test_a_transaction_that_postgres_ends_is_no_fault_of_the_job(jobs, trouble):
    job_id = jobs.submit()

    def write() -> None:
        with jobs.database.transaction() as session:
            session.execute(text(trouble))
            time.sleep(0.4)
            session.execute(text("UPDATE jobs SET version = version + 1"))

    with pytest.raises(DatabaseAway):
        write()
    assert jobs.leases.claim_next(owner="w").id == job_id


def test_a_worker_that_is_paused_in_its_choice_holds_up_the_others_for_seconds_only(jobs):
    job_id = jobs.submit()
    with jobs.database.engine.connect() as connection, Session(connection) as session:
        assert next_job(session, max_running=None, known_format=1) == job_id
        began = time.monotonic()
        assert jobs.leases.claim_next(owner="w").id == job_id
        assert time.monotonic() - began < PAUSE_SECONDS + 1
        with pytest.raises(DatabaseAway):
            session.execute(text("SELECT 1"))


def test_only_unfinished_jobs_keep_their_directory(jobs, tmp_path):
    going, over = jobs.submit("org/a"), jobs.submit("org/b")
    jobs.store.cancel(jobs.caller, over)
    for name in (going, over, "mrg_of_another_database"):
        (tmp_path / "jobs" / name / "output").mkdir(parents=True)
    clear(tmp_path, unfinished=jobs.leases.unfinished)
    assert [path.name for path in (tmp_path / "jobs").iterdir()] == [going]


def test_a_job_handed_back_waits_for_its_time(jobs):
    job_id = jobs.submit()
    jobs.leases.hand_back(claim(jobs, job_id), error=ERROR, delay_seconds=0.3)
    assert jobs.leases.claim(job_id, owner="w") is None
    assert jobs.rescue.sweep() == []
    time.sleep(0.35)
    assert jobs.rescue.sweep() == [job_id]
    assert jobs.leases.claim(job_id, owner="w").attempt == 2


def test_draining_does_not_charge_the_attempt(jobs):
    job_id = jobs.submit()
    jobs.leases.hand_back(claim(jobs, job_id), charge=False)
    assert (jobs.get(job_id).attempt, jobs.get(job_id).status) == (0, "queued")


def test_a_cancelled_orphan_is_cancelled_by_the_sweep(jobs):
    job_id = jobs.submit()
    lease = claim(jobs, job_id)
    assert jobs.store.cancel(jobs.caller, job_id).status == "cancelling"
    assert jobs.leases.renew(lease) is Status.CANCELLING
    time.sleep(LEASE_SECONDS * 1.2)
    jobs.rescue.sweep()
    assert jobs.get(job_id).status == "cancelled"


def test_past_the_point_of_no_return_nobody_ends_the_job(jobs):
    """Neither a cancellation nor the sweep nor used-up attempts: the Hub's head has to be read first."""
    job_id = jobs.submit()
    lease = claim(jobs, job_id)
    jobs.leases.record_publishing(lease, parent="p" * 40, manifest_sha256="m", summary={"selected": 1}, seconds=9)
    with pytest.raises(Exception, match="is being published"):
        jobs.store.cancel(jobs.caller, job_id)
    jobs.execute("UPDATE jobs SET attempt = 3, version = version + 1")
    time.sleep(LEASE_SECONDS * 1.2)
    assert jobs.rescue.sweep() == [job_id]
    with pytest.raises(Exception, match="is being published"):
        jobs.store.cancel(jobs.caller, job_id)
    again = jobs.leases.claim(job_id, owner="w2")
    assert (again.attempt, again.publishing["parent"]) == (4, "p" * 40)


def test_a_job_that_is_being_cancelled_cannot_begin_to_publish(jobs):
    job_id = jobs.submit()
    lease = claim(jobs, job_id)
    jobs.store.cancel(jobs.caller, job_id)
    with pytest.raises(LeaseLostError):
        jobs.leases.record_publishing(lease, parent="p", manifest_sha256="m", summary={}, seconds=9)
    assert jobs.get(job_id).publishing is None


def test_events_are_numbered_without_gaps_under_concurrency(jobs):
    job_id = jobs.submit()
    lease = claim(jobs, job_id)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: jobs.leases.report(lease, events=[NewEvent(type="x")] * (i % 4)), range(40)))
    events = jobs.store.events(jobs.caller, job_id, after=0, limit=1000)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert len(events) == 2 + sum(i % 4 for i in range(40))


def test_settling_keeps_result_and_documents(jobs):
    job_id = jobs.submit()
    lease = claim(jobs, job_id)
    jobs.leases.begin_stage(lease, "publishing")
    jobs.leases.settle(lease, Status.SUCCEEDED, result={"repo": "org/target"}, documents={"scores": {"data": [1]}})
    job = jobs.get(job_id)
    assert (job.status, job.result, job.lease_owner) == ("succeeded", {"repo": "org/target"}, None)
    assert jobs.store.document(jobs.caller, job_id, "scores") == {"data": [1]}
    assert jobs.store.stages([job_id])[job_id][0].ended_at is not None


def test_two_sweeps_at_once_announce_a_job_once(jobs):
    ids = [jobs.submit(f"org/t{i}") for i in range(10)]
    jobs.execute("UPDATE jobs SET announced_at = now() - interval '1 hour', version = version + 1")
    with ThreadPoolExecutor(4) as pool:
        announced = [job_id for found in pool.map(lambda _: jobs.rescue.sweep(), range(8)) for job_id in found]
    assert sorted(announced) == ids
