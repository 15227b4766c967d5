"""Commands about jobs that there are."""

from typing import Annotated, Literal

import typer

from app.console import tables
from app.console.follow import follow
from app.console.merges import finish, show
from app.console.options import JOBS, AsJson, JobId
from app.console.screen import emit
from app.console.service import client
from app.jobs.states import Status

app = typer.Typer()


@app.command(name="list", rich_help_panel=JOBS)
def list_jobs(
    *, status: Annotated[list[Status] | None, typer.Option(help="only jobs in this state; repeatable")] = None,
    target: Annotated[str | None, typer.Option(help="only jobs for this repository: org/name")] = None,
    label: Annotated[list[str] | None, typer.Option(help="only jobs with this label, name:value; repeatable")] = None,
    kind: Annotated[Literal["merges", "scores", "evaluations", "studies"], typer.Option(help="which jobs")] = "merges",
    limit: Annotated[int, typer.Option(min=1, help="at most so many")] = 20, as_json: AsJson = False,
) -> None:
    """Jobs of one kind, newest first."""
    states = [str(each) for each in status or ()]
    given = {"status": states, "target": target, "label": label}
    with client() as service:
        jobs = list(service.jobs(kind, limit=limit, **{name: value for name, value in given.items() if value}))
    emit(jobs) if as_json else tables.show_list(jobs)


@app.command(name="show", rich_help_panel=JOBS)
def show_job(job_id: JobId, *, as_json: AsJson = False) -> None:
    """One job."""
    with client() as service:
        show(service.get(job_id), as_json=as_json)


@app.command(rich_help_panel=JOBS)
def watch(job_id: JobId, *, as_json: AsJson = False) -> None:
    """Follow a job to its end. Ctrl-C ends the watching, not the job."""
    with client() as service:
        finish(follow(service.watch(job_id)), as_json=as_json)


@app.command(rich_help_panel=JOBS)
def cancel(job_id: JobId, *, as_json: AsJson = False) -> None:
    """Cancel a job."""
    with client() as service:
        show(service.cancel(job_id), as_json=as_json)


@app.command(rich_help_panel=JOBS)
def retry(job_id: JobId, *, as_json: AsJson = False) -> None:
    """Submit a failed or cancelled job's recipe again."""
    with client() as service:
        show(service.retry(job_id), as_json=as_json)


@app.command(rich_help_panel=JOBS)
def events(job_id: JobId, *, as_json: AsJson = False) -> None:
    """What has happened to a job so far, oldest first."""
    with client() as service:
        found = list(service.events(job_id))
    emit(found) if as_json else tables.show_events(found)


@app.command(rich_help_panel=JOBS)
def report(job_id: JobId, *, as_json: AsJson = False) -> None:
    """What a job found and did: the verdict and what was restored; with --json, the whole report.json."""
    with client() as service:
        found = service.report(job_id)
    emit(found) if as_json else tables.show_report(found)


@app.command(rich_help_panel=JOBS)
def deliveries(job_id: JobId, *, as_json: AsJson = False) -> None:
    """What a job's webhook was told, and whether it listened."""
    with client() as service:
        found = service.deliveries(job_id)
    emit(found) if as_json else tables.show_deliveries(found)


@app.command(rich_help_panel=JOBS)
def methods(
    name: Annotated[str | None, typer.Argument(help="one method, with its parameters")] = None, *,
    as_json: AsJson = False,
) -> None:
    """The merge methods that the service offers."""
    with client() as service:
        found = service.methods()
    chosen = [each for each in found if name in (None, each["name"])]
    if not chosen:
        raise ValueError(f"there is no method {name}; there are {', '.join(each['name'] for each in found)}")
    if as_json:
        emit(chosen[0] if name else chosen)
    elif name:
        tables.show_method(chosen[0])
    else:
        tables.show_methods(chosen)
