"""Upgrades: migrations beside long readers, and workers of two versions side by side."""

import threading
import time
from contextlib import contextmanager

import psycopg
import pytest
from sqlalchemy import text

from app.errors import SpearError
from app.jobs.database import Database
from app.jobs.formats import FORMAT
from app.jobs.leases import Lease, Leases
from app.jobs.migrate import downgrade, is_current, upgrade
from app.jobs.rescue import Rescue
from app.queue.broker import TASK, make_celery
from app.queue.dispatch import announce
from app.settings import Settings
from tests.fixtures.jobs import LEASE_SECONDS
from worker.tasks import make_worker

FIRST_INSERT = """
INSERT INTO jobs (id, owner, key_id, recipe, resolved, labels, target_repo, target_branch, max_attempts)
VALUES ('mrg_' || :n, 'o', 'k', '{}', '{}', '{}', 'o/t' || :n, 'main', 3)
"""
FIRST_CLAIM = """
UPDATE jobs SET version = version + 1, event_seq = event_seq + 1, updated_at = clock_timestamp(), status = 'running',
  lease_token = lease_token + 1, lease_owner = 'old', lease_until = clock_timestamp() + interval '1 minute',
  attempt = attempt + 1, started_at = coalesce(started_at, clock_timestamp()), progress = NULL
WHERE id = 'mrg_' || :n AND status = 'queued' AND attempt < max_attempts RETURNING lease_token
"""
FIRST_END = """
UPDATE jobs SET version = version + 1, updated_at = clock_timestamp(), status = 'succeeded', result = '{}',
  lease_owner = NULL, lease_until = NULL, lease_token = lease_token + 1, ended_at = clock_timestamp()
WHERE id = 'mrg_' || :n AND lease_token = :token
"""
FIRST_KEY = """
INSERT INTO api_keys (id, owner, name, prefix, digest, scopes, reads, writes)
VALUES ('k', 'o', 'n', 'p', '', '{}', '{}', '{}')
"""


@contextmanager
def reading(url: str):
    """A transaction that has read the jobs and does not end."""
    with psycopg.connect(url.replace("+psycopg", "", 1)) as connection:
        connection.execute("SELECT count(*) FROM jobs")
        yield connection


def test_a_migration_gives_up_quickly_behind_a_long_reader_and_can_be_repeated(empty_database_url):
    upgrade(empty_database_url, "0001")
    with reading(empty_database_url):
        began = time.monotonic()
        with pytest.raises(SpearError, match="nothing was changed") as caught:
            upgrade(empty_database_url)
        assert time.monotonic() - began < 5
        assert caught.value.code == "not_ready"
    with psycopg.connect(empty_database_url.replace("+psycopg", "", 1)) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("0001",)]
        columns = connection.execute("SELECT column_name FROM information_schema.columns WHERE table_name = 'jobs'")
        assert ("priority",) not in columns.fetchall()
    upgrade(empty_database_url)
    assert is_current(empty_database_url)


def test_with_patience_a_migration_goes_through_when_the_reader_has_ended(empty_database_url):
    upgrade(empty_database_url, "0001")
    with reading(empty_database_url) as connection:
        threading.Timer(4.5, connection.rollback).start()
        upgrade(empty_database_url, patience_seconds=30)
    assert is_current(empty_database_url)


def test_a_worker_of_the_first_schema_goes_on_while_the_newest_is_there(empty_database_url):
    upgrade(empty_database_url, "0001")
    database = Database(empty_database_url, pool_size=2)

    def run(statement: str, **values):
        with database.transaction() as session:
            return session.execute(text(statement), values)

    run(FIRST_KEY)
    run(FIRST_INSERT, n="a")
    token = run(FIRST_CLAIM, n="a").scalar_one()
    upgrade(empty_database_url)
    run(FIRST_END, n="a", token=token)  # what it began, it ends
    run(FIRST_INSERT, n="b")  # an API of before still accepts
    run(FIRST_INSERT, n="c")
    assert run(FIRST_CLAIM, n="b").scalar_one() == 1  # and a worker of before still claims
    assert Leases(database, seconds=60).claim_next(owner="new").id == "mrg_c"
    database.close()


def test_workers_of_two_formats_share_the_queue(jobs):
    old, new = (Leases(jobs.database, seconds=60, known_format=known) for known in (FORMAT, FORMAT + 1))
    known, newer, another = (jobs.submit(f"org/{name}") for name in ("known", "newer", "another"))
    jobs.execute("UPDATE jobs SET format = :n WHERE id = :id", n=FORMAT + 1, id=newer)
    mine = old.claim_next(owner="old")
    assert mine.id == known
    assert new.claim_next(owner="new").id == newer  # the new one takes what the old one cannot
    assert old.renew(Lease(job_id=known, token=mine.lease_token)) == "running"
    assert [job and job.id for job in (old.claim_next(owner="old"), old.claim_next(owner="old"))] == [another, None]


def test_a_sweep_of_before_saves_a_job_of_a_newer_format_and_no_old_worker_takes_it(jobs):
    old = jobs.leases
    new = Leases(jobs.database, seconds=LEASE_SECONDS, known_format=FORMAT + 1)
    newer = jobs.submit()
    jobs.execute("UPDATE jobs SET format = :n", n=FORMAT + 1)
    assert new.claim_next(owner="new").id == newer
    time.sleep(LEASE_SECONDS * 1.2)
    assert old.claim(newer, owner="old") is None
    assert Rescue(jobs.database, resend_seconds=30, idempotency_hours=1).sweep() == [newer]
    assert old.claim_next(owner="old") is None
    assert (jobs.get(newer).status, jobs.get(newer).attempt) == ("queued", 1)
    assert new.claim_next(owner="new").id == newer


def test_a_message_of_any_version_only_wakes_a_worker(jobs, database_url, redis_url, tmp_path):
    newer = jobs.submit()
    jobs.execute("UPDATE jobs SET format = :n", n=FORMAT + 1)
    settings = Settings(database_url=database_url, redis_url=redis_url, data_dir=tmp_path)
    task = make_worker(settings).tasks[TASK]
    for args, kwargs in (((), {}), (("mrg_x",), {}), (("mrg_x", 7), {"since": "3.0"})):  # none, today's, a newer one
        assert task.apply(args=args, kwargs=kwargs).get() is None
    assert jobs.get(newer).status == "queued"  # left to newer workers, not failed


def test_a_message_says_its_format_where_workers_of_before_do_not_look(redis_url):
    import json

    import redis

    celery = make_celery(Settings(redis_url=redis_url))
    assert announce(celery, "mrg_x")
    with redis.Redis.from_url(redis_url) as client:
        (message,) = client.lrange("celery", 0, -1)
    headers = json.loads(message)["headers"]
    assert (headers["spear_format"], headers["argsrepr"]) == (1, "['mrg_x']")


def test_back_to_the_first_schema_with_jobs_of_today(jobs, database_url):
    jobs.submit(priority=3, max_queue_seconds=9, max_runtime_seconds=9)
    jobs.database.close()
    downgrade(database_url, "0001")
    upgrade(database_url)
    assert is_current(database_url)
