"""100 000 jobs: every query that is asked often reads what it needs and no more."""

import time

import pytest
from sqlalchemy import event, text

from app.jobs.leases import Leases
from app.jobs.states import Status

ENDED, QUEUED, KEYS, HELD = 60_000, 40_000, 20, 40
FILL = f"""
INSERT INTO api_keys (id, owner, name, prefix, digest, scopes, reads, writes)
  SELECT 'k' || n, 'o' || n, 'n', 'p' || n, '', '{{}}', '{{}}', '{{}}' FROM generate_series(1, {KEYS}) AS n;
INSERT INTO jobs (id, owner, key_id, status, recipe, resolved, labels, target_repo, target_branch, max_attempts,
    error, result, ended_at, created_at, announced_at, priority)
  SELECT 'mrg_' || lpad(n::text, 26, '0'), 'o' || k, 'k' || k, s, '{{"method": {{"name": "spear"}}}}', '{{}}',
    CASE WHEN n % 1000 = 0 THEN '{{"team": "rare"}}'::jsonb ELSE '{{"team": "all"}}' END, 'org/t' || n, 'main', 3,
    '{{"code": "stalled"}}', '{{}}', CASE WHEN s IN ('succeeded', 'failed') THEN now() END,
    now() - interval '1 day' + n * interval '1 second', now(), n % 3
  FROM (
    SELECT n, CASE WHEN n % 4 = 0 THEN 2 + n % ({KEYS} - 1) ELSE 1 END AS k,
      CASE WHEN n > {ENDED} THEN 'queued' WHEN n % 500 = 0 THEN 'failed' ELSE 'succeeded' END AS s
    FROM generate_series(1, {ENDED + QUEUED}) AS n
  ) AS made;
UPDATE jobs SET status = 'running', lease_owner = 'w', lease_until = now() + interval '1 minute'
  WHERE id IN (SELECT id FROM jobs WHERE status = 'queued' ORDER BY id LIMIT {HELD});
"""


@pytest.fixture
def many(jobs):
    jobs.execute(FILL)
    with jobs.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE jobs"))
    return jobs


@pytest.fixture
def plans(many):
    """Runs a call and gives the plans of all its questions about jobs, as text."""

    def explained(call) -> str:
        asked = []

        def note(_connection, _cursor, statement, parameters, _context, _many) -> None:
            if "jobs" in statement:
                asked.append((statement, parameters))

        event.listen(many.database.engine, "before_cursor_execute", note)
        try:
            call()
        finally:
            event.remove(many.database.engine, "before_cursor_execute", note)
        assert asked
        found = []
        for statement, parameters in asked:
            with many.database.engine.connect() as connection:
                cursor = connection.connection.cursor()
                cursor.execute("EXPLAIN " + statement, parameters)
                found += [line for (line,) in cursor.fetchall()]
        return "\n".join(found)

    return explained


def test_no_question_that_is_asked_often_reads_all_jobs(many, plans):
    store, leases = many.store, Leases(many.database, seconds=60)
    caller = many.keys.find(many.keys.create(name="x", owner="o1", scopes=("merges:read",)))
    admin = many.keys.find(many.keys.create(name="y", scopes=("admin",)))
    middle = f"mrg_{50_000:026}"
    calls = {
        "claim": lambda: leases.claim_next(owner="w"), "sweep": many.rescue.sweep,
        "counts": store.counts, "oldest": store.oldest_queued_seconds,
        "one": lambda: store.get(caller, f"mrg_{1:026}"), "glimpse": lambda: store.glimpse([middle]),
        "list": lambda: store.find(caller, limit=21), "next": lambda: store.find(caller, limit=21, before=middle),
        "all": lambda: store.find(admin, limit=21), "all next": lambda: store.find(admin, limit=21, before=middle),
        "status": lambda: store.find(caller, limit=21, status=[Status.FAILED]),
        "statuses": lambda: store.find(caller, limit=21, status=[Status.FAILED, Status.CANCELLED]),
        "none": lambda: store.find(caller, limit=21, status=[Status.CANCELLED]),
        "label": lambda: store.find(caller, limit=21, labels={"team": "rare"}),
        "no label": lambda: store.find(caller, limit=21, labels={"team": "none"}),
        "target": lambda: store.find(caller, limit=21, target="org/T77777"),
        "admin target": lambda: store.find(admin, limit=21, target="org/T77777"),
        "busy": lambda: store.refuse_busy(caller, "org/nobody", "main"),
    }
    for name, call in calls.items():
        plan = plans(call)
        assert "Seq Scan on jobs" not in plan, f"{name}:\n{plan}"
        print(f"{name}: {1000 * _timed(call):.1f} ms")
        took = min(_timed(call) for _ in range(3))
        assert took < 0.1, f"{name} takes {took:.3f} s:\n{plan}"  # some 100 times what it takes by a right plan


def _timed(call) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
