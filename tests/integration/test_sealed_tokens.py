"""Callers' Hub tokens in the database: sealed, bound to their row, gone with the end of the job."""

import pickle
from dataclasses import replace

import pytest
from sqlalchemy import text

from app.errors import Code, SpearError
from app.jobs.leases import Lease
from app.jobs.sealed import CallerToken, Seal, open_token
from app.jobs.states import Status

TOKEN = "hf_canaryCanary0123456789"
SECRET = b"a secret of the service"


def submit(jobs, target: str = "org/target", *, token: str = TOKEN) -> str:
    caller = replace(jobs.caller, hub_token=CallerToken(token, Seal(SECRET)))
    return jobs.store.submit(jobs.submission(target), caller=caller)[0].id


def sealed(jobs) -> dict[str, bytes]:
    with jobs.database.transaction() as session:
        return dict(session.execute(text("SELECT job_id, sealed FROM sealed_tokens")).all())


def test_a_token_is_opened_for_its_job_only_and_with_the_same_secret_only(jobs):
    one, two = submit(jobs), submit(jobs, "org/other", token="hf_another0123456789")
    assert open_token(jobs.database, one, secret=lambda: SECRET) == TOKEN
    assert open_token(jobs.database, "mrg_none", secret=lambda: SECRET) is None
    with pytest.raises(SpearError) as refused:
        open_token(jobs.database, one, secret=lambda: b"another")
    assert refused.value.code is Code.NOT_READY
    jobs.execute("UPDATE sealed_tokens SET sealed = :s WHERE job_id = :j", s=sealed(jobs)[one], j=two)
    with pytest.raises(SpearError):
        open_token(jobs.database, two, secret=lambda: SECRET)


def test_nothing_of_the_token_is_in_the_row_and_no_two_rows_are_alike(jobs):
    one, two = submit(jobs), submit(jobs, "org/other")
    found = sealed(jobs)
    assert found[one] != found[two]
    assert not any(TOKEN.encode()[i : i + 6] in row for row in found.values() for i in range(len(TOKEN) - 6))


def test_a_caller_says_nothing_of_its_token(jobs):
    token = CallerToken(TOKEN, Seal(SECRET))
    caller = replace(jobs.caller, hub_token=token)
    assert TOKEN not in f"{token!r} {token} {caller!r}"
    with pytest.raises(TypeError):
        pickle.dumps(token)


@pytest.mark.parametrize("end", [Status.SUCCEEDED, Status.FAILED, Status.CANCELLED])
def test_the_end_of_the_job_wipes_it(jobs, end):
    job_id = submit(jobs)
    job = jobs.leases.claim(job_id, owner="w")
    lease = Lease(job_id=job_id, token=job.lease_token)
    assert job_id in sealed(jobs)
    error = {"code": "internal_error", "message": "", "stage": None, "retryable": True, "hint": "", "names": {}}
    result = {"repo": None, "commit": None, "url": None, "selected": 0, "scored": 0, "metrics": {}}
    jobs.leases.settle(
        lease, end, error=error if end is Status.FAILED else None, result=result if end is Status.SUCCEEDED else None
    )
    assert sealed(jobs) == {}


def test_a_job_that_is_queued_again_keeps_it_and_a_cancelled_one_does_not(jobs):
    job_id = submit(jobs)
    job = jobs.leases.claim(job_id, owner="w")
    jobs.leases.hand_back(Lease(job_id=job_id, token=job.lease_token))
    assert open_token(jobs.database, job_id, secret=lambda: SECRET) == TOKEN
    jobs.store.cancel(jobs.caller, job_id)
    assert sealed(jobs) == {}


def test_the_sweep_wipes_what_a_trigger_could_not(jobs):
    from app.jobs.audit import Audit

    job_id = submit(jobs)
    jobs.execute("ALTER TABLE jobs DISABLE TRIGGER wipe_sealed_token")
    jobs.store.cancel(jobs.caller, job_id)
    assert job_id in sealed(jobs)
    Audit(jobs.database, days=0).trim()
    assert sealed(jobs) == {}
