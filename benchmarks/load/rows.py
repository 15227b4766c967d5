"""Jobs by the thousand, written through the store's own tables."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import insert, text

from app.jobs.database import Database
from app.jobs.ids import new_id
from app.jobs.keys import Caller
from app.jobs.tables import Event, Job, Stage
from app.recipes import parse_recipe

STAGES = ("resolving", "downloading", "scoring", "selecting", "merging", "verifying", "publishing")
RECIPE = parse_recipe(
    {
        "base": {"repo": "org/base"}, "experts": [{"repo": "org/finance"}], "method": {"name": "spear"},
        "target": {"repo": "org/restored"},
    }
).model_dump(mode="json")
_OID = "0123456789abcdef0123456789abcdef01234567"
RESOLVED = {
    "base": {"repo": "org/base", "revision": "main", "commit": _OID},
    "experts": [{"repo": "org/finance", "revision": "main", "commit": _OID}],
    "target": {"repo": "org/restored", "branch": "main"},
}
RESULT = {"repo": "org/restored", "commit": _OID, "url": "https://hub/org/restored", "selected": 7, "scored": 28,
          "metrics": {"parameters_selected": 1_000}}  # fmt: skip


def add_finished(
    database: Database, caller: Caller, *, count: int, details: bool = True, batch: int = 1_000
) -> list[str]:
    """So many succeeded jobs, with their stages and events if `details` are wanted; their ids."""
    ids: list[str] = []
    while len(ids) < count:
        jobs = [_job(caller, number=len(ids) + number) for number in range(min(batch, count - len(ids)))]
        names = [str(job["id"]) for job in jobs]
        ids += names
        with database.transaction() as session:
            session.execute(insert(Job), jobs)
            if not details:
                continue
            session.execute(insert(Stage), [_stage(name, stage) for name in names for stage in STAGES])
            session.execute(insert(Event), [_event(name, seq) for name in names for seq in range(1, 10)])
    return ids


def add_queued(database: Database, caller: Caller, *, count: int) -> None:
    """So many queued jobs, each for a target of its own, announced long ago."""
    past = datetime.now(UTC) - timedelta(hours=1)
    rows = [
        _job(caller, number=number) | {"status": "queued", "result": None, "ended_at": None, "announced_at": past,
                                       "target_repo": f"org/queued{number}", "attempt": 0}
        for number in range(count)
    ]  # fmt: skip
    with database.transaction() as session:
        session.execute(insert(Job), rows)


def analyze(database: Database) -> None:
    """What Postgres does by itself after a while: it learns the tables' sizes."""
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))


def _job(caller: Caller, *, number: int) -> dict[str, Any]:
    now = datetime.now(UTC)
    return {
        "id": new_id("mrg"), "owner": caller.owner, "key_id": caller.key_id, "status": "succeeded", "recipe": RECIPE,
        "resolved": RESOLVED, "labels": {"team": random.choice(("risk", "ops", "law"))}, "attempt": 1,
        "target_repo": f"org/restored{number % 500}", "target_branch": "main", "result": RESULT, "max_attempts": 3,
        "event_seq": 9, "started_at": now, "ended_at": now, "announced_at": now,
    }  # fmt: skip


def _stage(job: str, name: str) -> dict[str, Any]:
    return {"job_id": job, "attempt": 1, "name": name, "ended_at": datetime.now(UTC)}


def _event(job: str, seq: int) -> dict[str, Any]:
    return {"job_id": job, "seq": seq, "type": "tensor.scored", "level": "info", "stage": "scoring", "data": {"n": seq}}
