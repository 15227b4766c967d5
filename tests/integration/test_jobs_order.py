"""Who is next: priorities, turns, limits of keys; and jobs that are too late."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from app.jobs.leases import Lease, Leases
from app.jobs.states import Status
from tests.fixtures.jobs import LEASE_SECONDS

LONG = 60.0


@pytest.fixture
def leases(jobs):
    return Leases(jobs.database, seconds=LONG)


def another(jobs, name: str, *, owner: str | None = None):
    """The same service, for another caller."""
    caller = jobs.keys.find(jobs.keys.create(name=name, owner=owner, scopes=("merges:write",), writes=["org"]))
    return replace(jobs, caller=caller)


def limit(jobs, count: int) -> None:
    jobs.execute("UPDATE api_keys SET max_running = :n WHERE id = :id", n=count, id=jobs.caller.key_id)


def claimed(leases) -> str | None:
    job = leases.claim_next(owner="w")
    return job.id if job else None


def end(jobs, leases, job_id: str) -> None:
    lease = Lease(job_id=job_id, token=jobs.get(job_id).lease_token)
    leases.settle(lease, Status.FAILED, error={"code": "x"})


def test_the_higher_priority_goes_first_then_the_older_job(jobs, leases):
    usual = [jobs.submit(f"org/{n}") for n in "ab"]
    low, high = jobs.submit("org/low", priority=-5), jobs.submit("org/high", priority=5)
    assert [claimed(leases) for _ in range(5)] == [high, *usual, low, None]


def test_one_callers_flood_does_not_keep_another_waiting(jobs, leases):
    flood = [jobs.submit(f"org/flood{n}") for n in range(6)]
    other = another(jobs, "other")
    mine = [other.submit(f"org/mine{n}") for n in range(2)]
    order = []
    for _ in range(5):  # one worker, so nobody's job runs when the next is chosen
        job_id = claimed(leases)
        order.append(job_id)
        end(jobs if job_id in flood else other, leases, job_id)
    assert order == [flood[0], mine[0], flood[1], mine[1], flood[2]]


def test_who_has_fewer_jobs_running_is_next(jobs, leases):
    flood = [jobs.submit(f"org/flood{n}") for n in range(4)]
    assert [claimed(leases), claimed(leases)] == flood[:2]
    other = another(jobs, "other")
    mine = [other.submit(f"org/mine{n}") for n in range(3)]
    # 2 run : 0 run, 2 : 1, then 2 : 2 and the turn is the one's who was served longer ago
    assert [claimed(leases) for _ in range(3)] == [mine[0], mine[1], flood[2]]


def test_a_key_at_its_limit_is_passed_over_until_a_place_is_free(jobs, leases):
    limit(jobs, 2)
    mine = [jobs.submit(f"org/{n}") for n in range(4)]
    other = another(jobs, "other").submit("org/other")
    assert [claimed(leases) for _ in range(4)] == [mine[0], other, mine[1], None]
    assert jobs.get(mine[2]).status == "queued"
    end(jobs, leases, mine[0])
    assert [claimed(leases), claimed(leases)] == [mine[2], None]


def test_a_rotated_key_gives_no_second_helping(jobs, leases):
    limit(jobs, 1)
    again = another(jobs, "team", owner=jobs.caller.owner)
    limit(again, 1)
    first, second = jobs.submit("org/a"), again.submit("org/b")
    assert {claimed(leases), claimed(leases)} <= {first, second, None}
    assert [jobs.get(first).status, again.get(second).status] == ["running", "queued"]


def test_the_service_has_a_limit_for_keys_without_one(jobs):
    few = Leases(jobs.database, seconds=LONG, max_running=1)
    first, _ = (jobs.submit(f"org/{n}") for n in range(2))
    assert [claimed(few), claimed(few)] == [first, None]
    jobs.execute("UPDATE api_keys SET unlimited = true")
    assert claimed(few) is not None


def test_workers_that_choose_at_once_never_exceed_a_limit(jobs, leases):
    limit(jobs, 3)
    for number in range(12):
        jobs.submit(f"org/{number}")
    with ThreadPoolExecutor(4) as pool:
        won = [job for job in pool.map(lambda i: leases.claim_next(owner=f"w{i}"), range(12)) if job]
    assert len({job.id for job in won}) == len(won) == 3


def test_a_row_of_a_newer_format_is_left_to_newer_workers(jobs, leases):
    newer, known = jobs.submit("org/newer", priority=5), jobs.submit("org/known")
    jobs.execute("UPDATE jobs SET format = 2 WHERE id = :id", id=newer)
    assert [claimed(leases), claimed(leases)] == [known, None]
    assert leases.claim(newer, owner="w") is None
    assert jobs.get(newer).status == "queued"


def test_a_job_that_cannot_start_in_time_fails_and_is_never_started(jobs, leases):
    job_id = jobs.submit(max_queue_seconds=0.2)
    time.sleep(0.25)
    assert claimed(leases) is None
    assert leases.claim(job_id, owner="w") is None
    assert jobs.rescue.sweep() == [job_id]  # so that a worker hears of it
    job = jobs.get(job_id)
    assert (job.status, job.error["code"], job.error["retryable"]) == ("failed", "queue_expired", True)


def test_once_started_the_queue_deadline_does_not_count(jobs, leases):
    job_id = jobs.submit(max_queue_seconds=0.3)
    assert claimed(leases) == job_id
    assert jobs.get(job_id).deadline is None
    leases.hand_back(Lease(job_id=job_id, token=1), charge=False)
    time.sleep(0.35)
    jobs.rescue.sweep()
    assert claimed(leases) == job_id


def test_the_runtime_counts_from_the_first_start_over_all_attempts(jobs, leases):
    job_id = jobs.submit(max_runtime_seconds=0.5)
    assert jobs.get(job_id).deadline is None
    first = leases.claim_next(owner="w")
    assert 0.4 < (first.deadline - first.updated_at).total_seconds() <= 0.5
    leases.hand_back(Lease(job_id=job_id, token=1), error={"code": "x"})
    assert leases.claim_next(owner="w").deadline == first.deadline
    leases.hand_back(Lease(job_id=job_id, token=3), error={"code": "x"})
    time.sleep(0.55)
    assert claimed(leases) is None
    jobs.rescue.sweep()
    assert jobs.get(job_id).error["code"] == "runtime_exceeded"


def test_the_sweep_ends_a_dead_workers_job_past_its_deadline(jobs):
    job_id = jobs.submit(max_runtime_seconds=0.1)
    assert jobs.leases.claim_next(owner="w").id == job_id
    time.sleep(LEASE_SECONDS * 1.2)
    jobs.rescue.sweep()
    job = jobs.get(job_id)
    assert (job.status, job.attempt, job.error["code"]) == ("failed", 1, "runtime_exceeded")
    assert "0.1 seconds" in job.error["message"]


def test_no_deadline_ends_a_job_that_has_recorded_a_publish(jobs):
    job_id = jobs.submit(max_runtime_seconds=0.1)
    lease = Lease(job_id=job_id, token=jobs.leases.claim_next(owner="w").lease_token)
    jobs.leases.record_publishing(lease, parent="p", manifest_sha256="m", summary={}, seconds=9)
    time.sleep(LEASE_SECONDS * 1.2)
    assert jobs.rescue.sweep() == [job_id]
    assert jobs.rescue.sweep() == []
    assert jobs.get(job_id).status == "queued"
    assert jobs.leases.claim_next(owner="w").id == job_id
