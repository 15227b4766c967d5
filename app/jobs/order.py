"""Which queued job is the next one. A message only wakes a worker: the worker asks here.

Higher priority first; among equals the owner with the fewest running jobs, then the one who was served longest ago,
then the oldest job. A key at its limit is passed over, its jobs stay queued. What this costs grows with the number of
keys, not of jobs: of each key only the head of its queue is looked at, by an index.
"""

from sqlalchemy import func, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.jobs.tables import Turn

CLAIM_LOCK = 7_300_003
PAUSE_SECONDS = 2
"""how long a worker that chooses may be silent: less than the others wait for a lock (`app.jobs.database`)"""

NEXT = text(
    """
    WITH busy AS (
      SELECT keys.owner, keys.name, count(*) AS running
      FROM jobs JOIN api_keys AS keys ON keys.id = jobs.key_id
      WHERE jobs.status IN ('cancelling', 'running') GROUP BY keys.owner, keys.name
    ), shares AS (SELECT owner, sum(running) AS running FROM busy GROUP BY owner)
    SELECT head.id
    FROM api_keys AS keys
    CROSS JOIN LATERAL (
      SELECT id, priority, created_at FROM jobs
      WHERE key_id = keys.id AND status = 'queued' AND format <= :format
        AND (not_before IS NULL OR not_before <= clock_timestamp())
        AND (publishing IS NOT NULL
             OR (attempt < max_attempts AND (deadline IS NULL OR deadline > clock_timestamp())))
      ORDER BY priority DESC, created_at LIMIT 1 FOR UPDATE SKIP LOCKED
    ) AS head
    LEFT JOIN busy ON (busy.owner, busy.name) = (keys.owner, keys.name)
    LEFT JOIN shares ON shares.owner = keys.owner
    LEFT JOIN turns ON turns.owner = keys.owner
    WHERE keys.unlimited OR nullif(coalesce(keys.max_running, CAST(:max_running AS integer)), 0) IS NULL
      OR coalesce(busy.running, 0) < coalesce(keys.max_running, CAST(:max_running AS integer))
    ORDER BY head.priority DESC, coalesce(shares.running, 0), turns.served_at NULLS FIRST, head.created_at, head.id
    LIMIT 1
    """
)


def next_job(session: Session, *, max_running: int | None, known_format: int) -> str | None:
    """The id of the job that a worker shall claim now, its row locked; None if none may be claimed.

    `max_running` is the limit of keys that have none of their own; 0 and None are no limit. Workers choose one after
    the other: two that choose at once could both take the last free place of a key.
    """
    # a worker that is paused here would keep all others waiting
    session.execute(text(f"SET LOCAL idle_in_transaction_session_timeout = '{PAUSE_SECONDS}s'"))
    session.execute(text(f"SELECT pg_advisory_xact_lock({CLAIM_LOCK})"))
    return session.execute(NEXT, {"format": known_format, "max_running": max_running}).scalar_one_or_none()


def take_turn(session: Session, owner: str) -> None:
    """This owner has been served just now."""
    statement = insert(Turn).values(owner=owner, served_at=func.clock_timestamp())
    session.execute(
        statement.on_conflict_do_update(index_elements=["owner"], set_={"served_at": statement.excluded.served_at})
    )
