"""Migrations on a real Postgres, with rows in the tables."""

import subprocess
import sys

from alembic import command

from app.jobs.database import Database
from app.jobs.keys import Keys
from app.jobs.migrate import config, downgrade, is_current, upgrade
from app.jobs.store import Store, Submission


def _fill(url: str) -> str:
    database = Database(url, pool_size=1)
    keys = Keys(database, secret=b"s")
    caller = keys.find(keys.create(name="a", scopes=("admin",)))
    assert caller is not None
    submission = Submission(recipe={}, resolved={}, labels={}, target_repo="a/b", target_branch="main")
    job, _ = Store(database, max_attempts=3, idempotency_hours=1).submit(submission, caller=caller)
    database.close()
    return job.id


def test_up_down_and_up_again_on_a_filled_database(empty_database_url):
    upgrade(empty_database_url)
    _fill(empty_database_url)
    downgrade(empty_database_url)
    assert not is_current(empty_database_url)
    upgrade(empty_database_url)
    assert is_current(empty_database_url)
    assert _fill(empty_database_url).startswith("mrg_")


def test_the_models_and_the_migrations_say_the_same(database_url):
    command.check(config(database_url))


def test_several_migrators_at_once(empty_database_url):
    code = f"from app.jobs.migrate import upgrade; upgrade({empty_database_url!r})"
    migrators = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [migrator.wait(30) for migrator in migrators] == [0, 0, 0]
    assert is_current(empty_database_url)
