"""The use case behind every POST that makes a job: check what can be known early, make the row, tell a worker."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import Header

from app.api.services import Services
from app.errors import Code, SpearError
from app.hub.client import connected
from app.hub.preflight import Preflight, preflight
from app.hub.tasks import Material
from app.jobs.keys import Caller
from app.jobs.states import Kind, Status
from app.jobs.store import Idempotency, Submission
from app.jobs.tables import Job
from app.queue.dispatch import announce
from app.recipes import AnyRecipe, Measuring, Recipe, Scoring, Study
from app.tracing import traceparent
from app.webhooks.policy import Policy

_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_TURN_SECONDS = 0.5
IdempotencyKey = Annotated[str | None, Header(
    description="the same key and body give the same job", json_schema_extra={"pattern": f"^{_KEY.pattern}$"},
)]  # fmt: skip
"""bare, or in the quotes of a structured header"""


Request = AnyRecipe
_KINDS: dict[type[Request], Kind] = {
    Recipe: Kind.MERGE, Scoring: Kind.SCORES, Measuring: Kind.EVALUATION, Study: Kind.STUDY,
}  # fmt: skip


def check(services: Services, recipe: Request, *, caller: Caller) -> Preflight:
    """All checks before a job is accepted; raises `SpearError` with the field at fault."""
    if isinstance(recipe, Recipe) and recipe.webhook:
        Policy.of(services.settings.webhook_hosts).admit(recipe.webhook.url)
    commits = _named_commits(services, recipe, caller=caller)
    token = caller.hub_token.reveal() if caller.hub_token else None
    with _turn(services), connected(services.settings, credential=caller.credential, token=token) as hubs:
        checked = preflight(
            recipe, hubs=hubs, settings=services.settings, reads=caller.reads, writes=caller.writes, commits=commits
        )
    if isinstance(recipe, Recipe):
        services.store.refuse_busy(caller, recipe.target.repo, recipe.target.branch)
    return checked


@contextmanager
def _turn(services: Services) -> Iterator[None]:
    """One of the few checks at a time: a slow Hub must not take the threads that answer everybody else."""
    if not services.checks.acquire(timeout=_TURN_SECONDS):
        raise SpearError(Code.NOT_READY, "too many requests are being checked against the Hub; try again in a moment")
    try:
        yield
    finally:
        services.checks.release()


def submit(
    services: Services, recipe: Request, *, caller: Caller, key: str | None = None, retry_of: str | None = None,
    request_id: str | None = None,
) -> tuple[Job, bool]:
    """The job, committed, and whether it was there before under the same Idempotency-Key."""
    idempotency = Idempotency(key=_bare(key), body_digest=_digest(recipe, retry_of)) if key is not None else None
    known = services.store.replayed(caller, idempotency) if idempotency else None
    if known:
        return known, True
    try:
        checked = check(services, recipe, caller=caller)
    except SpearError as error:
        twin = services.store.replayed(caller, idempotency) if idempotency and error.code is Code.TARGET_BUSY else None
        if twin is None:
            raise
        return twin, True  # it was submitted while we looked, and is what keeps the target busy
    target = recipe.target if isinstance(recipe, Recipe) else None
    submission = Submission(
        kind=_KINDS[type(recipe)], recipe=recipe.model_dump(mode="json"),
        resolved=resolve(recipe, checked), labels=recipe.labels, warnings=checked.warnings, retry_of=retry_of,
        planned_bytes=checked.bytes_to_download,
        target_repo=target.repo if target else None, target_branch=target.branch if target else None,
        request_id=request_id, traceparent=traceparent(),
        priority=recipe.priority, max_queue_seconds=recipe.max_queue_seconds,
        max_runtime_seconds=recipe.max_runtime_seconds,
    )
    job, replayed = services.store.submit(submission, caller=caller, idempotency=idempotency)
    if not replayed:
        announce(services.celery, job.id)
    return job, replayed


def _named_commits(services: Services, recipe: Request, *, caller: Caller) -> list[str] | None:
    """The commits that the recipe's scoring job was pinned to: what a person looked at is what gets merged."""
    if not isinstance(recipe, Recipe) or recipe.scores is None:
        return None
    scoring = services.store.get(caller, recipe.scores, kind=Kind.SCORES)
    pinned = [scoring.resolved["base"], *scoring.resolved["experts"]]
    repos = [recipe.base.repo, *(expert.repo for expert in recipe.experts)]
    if scoring.status != Status.SUCCEEDED or [one["repo"] for one in pinned] != repos:
        raise SpearError(
            Code.INVALID_RECIPE, f"{recipe.scores} is not a finished scoring of {' and '.join(repos)}",
            pointer="/scores", job=recipe.scores,
        )
    return [one["commit"] for one in pinned]


def resolve(recipe: Request, checked: Preflight) -> dict[str, Any]:
    """Every repo with the commit that it was pinned to."""
    pins = [{"repo": pin.repo, "revision": pin.revision, "commit": pin.commit} for pin in checked.pins]
    count = len(recipe.experts)
    resolved: dict[str, Any] = {}
    if recipe.base:
        resolved = {"base": pins[0], "experts": pins[1 : 1 + count]}
    if isinstance(recipe, Recipe):
        resolved["target"] = {"repo": recipe.target.repo, "branch": recipe.target.branch}
    if isinstance(recipe, Measuring):
        resolved["models"] = pins[-len(recipe.models) :]
    if checked.materials:
        resolved["tasks"] = [_pinned(material) for material in checked.materials]
    return resolved


def _pinned(material: Material) -> dict[str, str]:
    pin = material.pin
    return {
        "repo": pin.repo, "repo_type": material.repo_type, "revision": pin.revision, "commit": pin.commit
    }


def plan(recipe: Recipe, checked: Preflight) -> dict[str, Any]:
    """What the merge would do: the recipe with its defaults, tensors, bytes to move, memory and disk."""
    return {
        "recipe": recipe.model_dump(mode="json"), "resolved": resolve(recipe, checked),
        "tensors": len(checked.admission.tensors), "parameters": checked.admission.parameters, "dtypes": checked.dtypes,
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


def _digest(recipe: Request, retry_of: str | None) -> bytes:
    return hashlib.sha256(f"{type(recipe).__name__} {retry_of} {recipe.model_dump_json()}".encode()).digest()
