"""Submitting, reading, listing and cancelling on a real Postgres."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import permutations

import pytest
from sqlalchemy import event
from sqlalchemy.exc import IntegrityError

from app.errors import Code, SpearError
from app.jobs.leases import Lease, LeaseLostError
from app.jobs.states import TRANSITIONS, Status
from app.jobs.store import Idempotency


def test_a_submitted_job_is_queued_with_its_first_event(jobs):
    job_id = jobs.submit(warnings=["the licences differ"])
    job = jobs.get(job_id)
    events = jobs.store.events(jobs.caller, job_id, after=0, limit=10)
    assert (job.status, job.attempt, job.stage) == ("queued", 0, None)
    assert [(event.seq, event.type) for event in events] == [(1, "job.queued"), (2, "job.warning")]
    assert events[1].data == {"message": "the licences differ"}


def test_one_active_job_per_target_whatever_the_case(jobs):
    first = jobs.submit("org/target")
    with pytest.raises(SpearError) as caught:
        jobs.submit("Org/Target")
    assert caught.value.code is Code.TARGET_BUSY
    assert caught.value.names["job"] == first
    jobs.submit("org/target", target_branch="other")
    jobs.store.cancel(jobs.caller, first)
    assert jobs.submit("org/target") != first


def test_the_same_idempotency_key_gives_the_same_job(jobs):
    key = Idempotency(key="k", body_digest=b"1")
    first, replayed = jobs.store.submit(jobs.submission(), caller=jobs.caller, idempotency=key)
    again, replayed_again = jobs.store.submit(jobs.submission(), caller=jobs.caller, idempotency=key)
    assert (replayed, replayed_again) == (False, True)
    assert again.id == first.id
    with pytest.raises(SpearError) as caught:
        jobs.store.submit(
            jobs.submission("org/x"), caller=jobs.caller, idempotency=Idempotency(key="k", body_digest=b"2")
        )
    assert caught.value.code is Code.IDEMPOTENCY_KEY_REUSED


def test_an_idempotency_key_expires(jobs):
    key = Idempotency(key="k", body_digest=b"1")
    first, _ = jobs.store.submit(jobs.submission("org/a"), caller=jobs.caller, idempotency=key)
    jobs.execute("UPDATE idempotency_keys SET created_at = now() - interval '25 hours'")
    second, replayed = jobs.store.submit(jobs.submission("org/b"), caller=jobs.caller, idempotency=key)
    assert not replayed
    assert second.id != first.id


def test_a_busy_target_does_not_use_up_the_idempotency_key(jobs):
    first = jobs.submit()
    key = Idempotency(key="k", body_digest=b"1")
    with pytest.raises(SpearError):
        jobs.store.submit(jobs.submission(), caller=jobs.caller, idempotency=key)
    jobs.store.cancel(jobs.caller, first)
    _, replayed = jobs.store.submit(jobs.submission(), caller=jobs.caller, idempotency=key)
    assert not replayed


def test_concurrent_twins_make_one_job(jobs):
    key = Idempotency(key="k", body_digest=b"1")

    def submit(_):
        return jobs.store.submit(jobs.submission(), caller=jobs.caller, idempotency=key)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(submit, range(24)))
    assert len({job.id for job, _ in answers}) == 1
    assert sum(not replayed for _, replayed in answers) == 1


def test_jobs_of_another_owner_are_not_there(jobs):
    job_id = jobs.submit()
    other = jobs.keys.find(jobs.keys.create(name="other", scopes=("merges:read",)))
    admin = jobs.keys.find(jobs.keys.create(name="boss", scopes=("admin",)))
    with pytest.raises(SpearError) as caught:
        jobs.store.get(other, job_id)
    assert caught.value.code is Code.NOT_FOUND
    assert not jobs.store.find(other, limit=10)
    assert jobs.store.get(admin, job_id).id == job_id


def test_listing_by_page_status_target_and_label(jobs):
    ids = [jobs.submit(f"org/t{i}", labels={"team": "risk" if i % 2 else "ops"}) for i in range(5)]
    jobs.store.cancel(jobs.caller, ids[0])
    find = jobs.store.find
    assert [job.id for job in find(jobs.caller, limit=2)] == ids[:2:-1]
    assert [job.id for job in find(jobs.caller, limit=9, before=ids[3])] == ids[2::-1]
    assert [job.id for job in find(jobs.caller, limit=9, status=[Status.CANCELLED])] == [ids[0]]
    assert [job.id for job in find(jobs.caller, limit=9, target="ORG/t3")] == [ids[3]]
    assert [job.id for job in find(jobs.caller, limit=9, labels={"team": "risk"})] == [ids[3], ids[1]]


def test_cancelling_a_queued_job_ends_it_and_asking_again_changes_nothing(jobs):
    job_id = jobs.submit()
    assert jobs.store.cancel(jobs.caller, job_id).status == "cancelled"
    assert jobs.store.cancel(jobs.caller, job_id).status == "cancelled"
    assert [event.type for event in jobs.store.events(jobs.caller, job_id, after=0, limit=9)] == [
        "job.queued", "job.cancelled",
    ]


def test_a_job_that_is_handed_back_while_it_is_cancelled_is_not_missed(jobs):
    """Between the questions whether it waits and whether somebody works on it the job may come back to the queue."""
    job = jobs.leases.claim(jobs.submit(), owner="w")
    lease, updates = Lease(job_id=job.id, token=job.lease_token), []

    def back() -> None:
        with suppress(LeaseLostError):
            jobs.leases.hand_back(lease)

    worker = threading.Thread(target=back)

    def meanwhile(_connection, _cursor, statement, *_) -> None:
        if statement.startswith("UPDATE jobs") and threading.current_thread() is threading.main_thread():
            updates.append(statement)
            if len(updates) == 2:
                worker.start()
                worker.join(0.5)

    event.listen(jobs.database.engine, "before_cursor_execute", meanwhile)
    try:
        assert jobs.store.cancel(jobs.caller, job.id).status == "cancelling"
    finally:
        event.remove(jobs.database.engine, "before_cursor_execute", meanwhile)
    worker.join()
    assert jobs.get(job.id).status == "cancelling"


def test_cancelling_what_has_ended_is_too_late(jobs):
    job_id = jobs.submit()
    job = jobs.leases.claim(job_id, owner="w")
    jobs.leases.settle(Lease(job_id=job_id, token=job.lease_token), Status.SUCCEEDED, result={"repo": "org/target"})
    with pytest.raises(SpearError) as caught:
        jobs.store.cancel(jobs.caller, job_id)
    assert caught.value.code is Code.TOO_LATE


def test_an_ended_row_cannot_be_changed_even_by_hand(jobs):
    job_id = jobs.submit()
    jobs.store.cancel(jobs.caller, job_id)
    for change in ("status = 'queued', ended_at = NULL", "error = '{}'", "attempt = 2"):
        with pytest.raises(IntegrityError, match="has ended as cancelled"):
            jobs.execute(f"UPDATE jobs SET {change}, version = version + 1")


@pytest.mark.parametrize(("old", "new"), sorted(permutations(Status, 2)))
def test_the_database_allows_exactly_the_known_transitions(jobs, old, new):
    """Rows are put into the old state by hand, then moved."""
    job_id = jobs.submit()
    jobs.execute("ALTER TABLE jobs DISABLE TRIGGER guard_job")
    shape = {
        True: "lease_owner = 'w', lease_until = now(), ended_at = NULL",
        False: "lease_owner = NULL, lease_until = NULL, ended_at = now()",
    }

    def move(status: Status) -> None:
        fields = shape[status in {"running", "cancelling"}]
        fields = fields.replace("ended_at = now()", "ended_at = NULL") if status == "queued" else fields
        jobs.execute(
            f"UPDATE jobs SET status = '{status}', {fields}, result = '{{}}', error = '{{}}', version = version + 1 "
            f"WHERE id = '{job_id}'"
        )

    move(old)
    jobs.execute("ALTER TABLE jobs ENABLE TRIGGER guard_job")
    if new in TRANSITIONS[old]:
        move(new)
        assert jobs.get(job_id).status == new
    else:
        with pytest.raises(IntegrityError):
            move(new)
