"""The use case behind `POST /merges`: check what can be known early, make the row, tell a worker."""

import hashlib
import re
from typing import Any

from app.api.services import Services
from app.errors import Code, SpearError
from app.hub.client import connect
from app.hub.preflight import Preflight, preflight
from app.jobs.keys import Caller
from app.jobs.store import Idempotency, Submission
from app.jobs.tables import Job
from app.queue.dispatch import announce
from app.recipes import Recipe

_KEY = re.compile(r"[\x21-\x7e]{1,255}")


def check(services: Services, recipe: Recipe, *, caller: Caller) -> Preflight:
    """All checks before a job is accepted; raises `SpearError` with the field at fault."""
    hubs = connect(services.settings)
    try:
        return preflight(
            recipe, hubs=hubs, settings=services.settings, reads=caller.reads, writes=caller.writes
        )
    finally:
        hubs.anonymous.close()
        hubs.service.close()


def submit(
    services: Services, recipe: Recipe, *, caller: Caller, key: str | None = None, retry_of: str | None = None,
    request_id: str | None = None,
) -> tuple[Job, bool]:
    """The job, committed, and whether it was there before under the same Idempotency-Key."""
    idempotency = Idempotency(key=_bare(key), body_digest=_digest(recipe)) if key is not None else None
    known = services.store.replayed(caller, idempotency) if idempotency else None
    if known:
        return known, True
    checked = check(services, recipe, caller=caller)
    submission = Submission(
        recipe=recipe.model_dump(mode="json"), resolved=resolve(recipe, checked), labels=recipe.labels,
        target_repo=recipe.target.repo, target_branch=recipe.target.branch, warnings=checked.warnings,
        retry_of=retry_of, request_id=request_id,
    )
    job, replayed = services.store.submit(submission, caller=caller, idempotency=idempotency)
    if not replayed:
        announce(services.celery, job.id)
    return job, replayed


def resolve(recipe: Recipe, checked: Preflight) -> dict[str, Any]:
    """Every repo with the commit that it was pinned to."""
    base, *experts = [
        {"repo": pin.repo, "revision": pin.revision, "commit": pin.commit} for pin in checked.pins
    ]
    return {
        "base": base, "experts": experts,
        "target": {"repo": recipe.target.repo, "branch": recipe.target.branch},
    }


def plan(recipe: Recipe, checked: Preflight) -> dict[str, Any]:
    """What the merge would do: tensors, bytes to move, memory and disk."""
    return {
        "resolved": resolve(recipe, checked), "tensors": len(checked.admission.tensors),
        "parameters": checked.admission.parameters, "dtypes": checked.dtypes,
        "bytes_to_download": checked.bytes_to_download, "output_bytes": checked.output_bytes,
        "peak_memory_bytes": checked.peak_memory_bytes, "disk_bytes": checked.disk_bytes,
        "warnings": checked.warnings,
    }


def _bare(key: str) -> str:
    """The key without the quotes of a structured header; callers send both forms."""
    bare = key[1:-1] if len(key) > 1 and key[0] == key[-1] == '"' else key
    if not _KEY.fullmatch(bare):
        raise SpearError(Code.INVALID_REQUEST, "Idempotency-Key takes 1 to 255 visible ASCII characters")
    return bare


def _digest(recipe: Recipe) -> bytes:
    return hashlib.sha256(recipe.model_dump_json().encode()).digest()
