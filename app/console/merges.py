"""Commands that make jobs: merges, scorings, evaluations."""

from pathlib import Path
from typing import Annotated

import typer

from app.client import Client, Job
from app.console import tables
from app.console.failures import show_failure
from app.console.follow import follow
from app.console.options import JOBS, AsJson, Branch, HubToken, Public, RecipeFile, TargetRepo, Wait, file_or_stdin
from app.console.recipes import model, read, read_object, target_of
from app.console.screen import Exit, emit, err, out
from app.console.service import client

app = typer.Typer()
RequestFile = Annotated[Path, file_or_stdin("models and tasks: a JSON file (- for stdin)")]
Repo = Annotated[str, typer.Argument(help="org/name or org/name@revision")]


@app.command(rich_help_panel=JOBS)
def submit(
    recipe: RecipeFile, *, target: TargetRepo = None, branch: Branch = None, public: Public = False,
    wait: Wait = False, key: Annotated[str | None, typer.Option(
        "--idempotency-key", help="the same key and recipe give the same job, however often this is run"
    )] = None,
    hub_token_file: HubToken = None, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Submit a merge; with --wait, follow it to its end."""
    body = read(recipe, target=target_of(target, branch=branch, public=public))
    token = hub_token_file.read_text().strip() if hub_token_file else None
    with client() as service:
        job = service.submit(body, idempotency_key=key, hub_token=token)
        if not wait:
            show(job, as_json=as_json)
            return
        finish(attend(service, job), as_json=as_json)


@app.command(rich_help_panel=JOBS)
def plan(
    recipe: RecipeFile, *, target: TargetRepo = None, branch: Branch = None, public: Public = False,
    as_json: AsJson = False,
) -> None:
    """What a merge would do: pinned commits, bytes to move, warnings, refusals. Exit status 1 if it is refused.

    JSON also where stdout is no terminal.
    """
    with client() as service:
        found = service.plan(read(recipe, target=target_of(target, branch=branch, public=public)))
    if as_json or not out.is_terminal:
        emit(found)
    else:
        tables.show_plan(found)
    if not found["accepted"]:
        raise typer.Exit(Exit.FAILED)


@app.command(rich_help_panel=JOBS)
def scores(
    base: Repo, adapted: Repo, *,
    policy: Annotated[str, typer.Option(help="how many to restore: conservative, balanced or aggressive")] = "balanced",
    precision: Annotated[str, typer.Option(help="of singular values: exact, or fast with an estimate")] = "exact",
    as_json: AsJson = False,
) -> None:
    """Score a pair without merging it: what would be restored, and why."""
    method = {"name": "spear", "policy": policy, "precision": precision}
    with client() as service:
        job = attend(service, service.score({"base": model(base), "experts": [model(adapted)], "method": method}))
        if job["status"] == "succeeded":
            rows = service.scores(job["id"])
            emit(rows) if as_json else tables.show_scores(rows)
            return
    finish(job, as_json=as_json)


@app.command(rich_help_panel=JOBS)
def evaluate(
    request: RequestFile, *, wait: Wait = False, hub_token_file: HubToken = None, as_json: AsJson = False
) -> None:
    """Measure models that there are; nothing is merged. With --wait, follow it to its end and show what was found."""
    token = hub_token_file.read_text().strip() if hub_token_file else None
    with client() as service:
        job = service.evaluate(read_object(request), hub_token=token)
        if not wait:
            show(job, as_json=as_json)
            return
        job = attend(service, job)
        if job["status"] == "succeeded":
            found = service.report(job["id"])
            emit(found) if as_json else tables.show_report(found)
            return
    finish(job, as_json=as_json)


def attend(service: Client, job: Job) -> Job:
    """Name the job, and follow it to its end."""
    err.print(f"job {job['id']}")
    return follow(service.watch(job["id"]))


def show(job: Job, *, as_json: bool) -> None:
    """A job, for people or for programs."""
    emit(job) if as_json else tables.show(job)


def finish(job: Job, *, as_json: bool) -> None:
    """Show a job that has ended; the exit status is 0 only if it succeeded."""
    show(job, as_json=as_json)
    if job["status"] != "succeeded":
        if as_json and job["error"]:
            show_failure(job["error"])
        raise typer.Exit(Exit.FAILED)
