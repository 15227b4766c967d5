"""What a study publishes: the named cells, submitted as merge jobs of the study's own key.

A row is enough: the sweep tells a worker of it. The key of each submission is made of the study's id, so that a study
that is attempted twice submits once.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import structlog

from app.errors import SpearError
from app.jobs.database import Database
from app.jobs.keys import Keys
from app.jobs.leases import Lease
from app.jobs.quotas import Quota
from app.jobs.states import Kind
from app.jobs.store import Idempotency, Store, Submission
from app.jobs.tables import Job
from app.recipes import Recipe, Study
from app.settings import Settings

log = structlog.get_logger()


def submit_cells(
    job: Job, study: Study, report: Mapping[str, Any], *, lease: Lease, database: Database, settings: Settings
) -> list[dict[str, Any]]:
    """One entry for each publication: the cell's key, the target, and the merge job or why there is none.

    A publication that is refused (the target is busy, the key has too many jobs) fails no study. Raises
    `LeaseLostError` where the study is no longer ours or is being cancelled: nothing is submitted from then on.
    """
    quota = Quota(max_active=settings.max_active_jobs or None, bytes_per_day=settings.max_daily_bytes or None)
    caller = Keys(database, secret=b"", defaults=quota).caller(job.key_id)
    store = Store(database, max_attempts=settings.max_attempts, idempotency_hours=settings.idempotency_hours)
    cells = {cell.key: cell for cell in study.cells()}
    told = []
    for one, named in zip(report["publications"], study.publish, strict=True):
        entry = {"cell": one["key"], "target": one["target"], "branch": one["branch"], "job": None, "error": None}
        if caller is None:
            told.append(entry | {"error": "the API key that submitted the study is no longer valid"})
            continue
        recipe = study.recipe(cells[one["key"]], target=named.target)
        submission = _submission(job, recipe, cell=one["key"])
        key = Idempotency(key=f"{job.id}/{one['key']}", body_digest=_digest(recipe))
        try:
            made, _ = store.submit(submission, caller=caller, idempotency=key, under=lease)
            told.append(entry | {"job": made.id})
        except SpearError as error:
            log.warning("study.not_published", job=job.id, cell=one["key"], code=error.code)
            told.append(entry | {"error": error.message})
    return told


def _submission(job: Job, recipe: Recipe, *, cell: str) -> Submission:
    """Pinned to the study's commits: what was measured is what gets merged."""
    repos = [expert.repo for expert in recipe.experts]
    experts = [next(one for one in job.resolved["experts"] if one["repo"] == repo) for repo in repos]
    target = {"repo": recipe.target.repo, "branch": recipe.target.branch}
    return Submission(
        kind=Kind.MERGE, recipe=recipe.model_dump(mode="json"),
        resolved={"base": job.resolved["base"], "experts": experts, "target": target},
        labels={**job.labels, "study": job.id, "cell": cell}, target_repo=recipe.target.repo,
        target_branch=recipe.target.branch, request_id=job.request_id, traceparent=job.traceparent,
        priority=job.priority,
    )  # fmt: skip


def _digest(recipe: Recipe) -> bytes:
    return hashlib.sha256(recipe.model_dump_json().encode()).digest()
