"""`spear`: the service's parts, and its client."""

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated, Any

import httpx2
import typer
from rich.markup import escape

from app import cores
from app.client import ApiError, Client, Job
from app.console.jobs import err, follow, out, show, show_list, show_problem, show_scores
from app.console.keys import keys
from app.errors import SpearError
from app.logs import configure
from app.settings import Settings, load

app = typer.Typer(no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False, help=__doc__)
app.add_typer(keys, name="keys")

AsJson = Annotated[bool, typer.Option("--json", help="print the service's JSON")]
RecipeFile = Annotated[
    Path, typer.Argument(exists=True, dir_okay=False, help="the recipe: a JSON file, or mergekit's YAML (.yml, .yaml)")
]
TargetRepo = Annotated[str | None, typer.Option("--target", help="where a mergekit YAML's result goes: org/name")]
Branch = Annotated[str | None, typer.Option(help="the target's branch, with --target")]
Public = Annotated[bool, typer.Option("--public", help="make the target public, with --target")]


@app.command()
def up(
    *, port: int = 8000, data_dir: Annotated[Path | None, typer.Option(help="where everything is kept")] = None,
    workers: Annotated[int, typer.Option(min=1)] = 1, local_hub: bool = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the ready line as JSON")] = False,
) -> None:
    """The whole service on this machine."""
    from app.local.stack import run

    cores.forbid()
    settings = load() if data_dir is None else load(data_dir=data_dir)
    configure(settings.log_level)
    run(settings, port=port, workers=workers, local_hub=local_hub, as_json=as_json)


@app.command()
def api(*, host: str = "127.0.0.1", port: int = 8000) -> None:
    """The HTTP API."""
    import uvicorn

    from app.main import create_app

    settings = _serving()
    uvicorn.run(create_app(settings), host=host, port=port, access_log=False, log_level=settings.log_level)


@app.command()
def worker(*, name: str = "spear-worker") -> None:
    """A worker: takes jobs one at a time. SIGTERM hands the running job back."""
    _serving()
    name = name if name.startswith("spear-worker") else f"spear-worker-{name}"
    os.execv(sys.executable, [sys.executable, "-P", "-m", "worker", "--name", name])  # noqa: S606  (no shell)


@app.command()
def sweep() -> None:
    """The sweep: rescues jobs whose worker is gone and announces those that nobody has heard of."""
    from app.queue.sweep import run

    settings, stop = _serving(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    run(settings, stop=stop)


@app.command()
def migrate() -> None:
    """Bring the database to the newest schema; a table that is in use is waited for up to a minute."""
    from app.jobs.migrate import upgrade

    upgrade(_serving().database_url, patience_seconds=60)


@app.command()
def submit(
    recipe: RecipeFile, *, target: TargetRepo = None, branch: Branch = None, public: Public = False,
    wait: bool = False, as_json: AsJson = False,
) -> None:
    """Submit a merge; with --wait, follow it to its end."""
    with _client() as client:
        job = client.submit(_read(recipe, target=_target(target, branch=branch, public=public)))
        if not wait:
            _print(job, as_json=as_json)
            return
        err.print(f"job {job['id']}")
        _finish(follow(client.watch(job["id"])), as_json=as_json)


@app.command(name="show")
def show_job(job_id: str, *, as_json: AsJson = False) -> None:
    """One job."""
    with _client() as client:
        _print(client.get(job_id), as_json=as_json)


@app.command()
def watch(job_id: str, *, as_json: AsJson = False) -> None:
    """Follow a job to its end."""
    with _client() as client:
        _finish(follow(client.watch(job_id)), as_json=as_json)


@app.command()
def cancel(job_id: str, *, as_json: AsJson = False) -> None:
    """Cancel a job."""
    with _client() as client:
        _print(client.cancel(job_id), as_json=as_json)


@app.command()
def retry(job_id: str, *, as_json: AsJson = False) -> None:
    """Submit a failed or cancelled job's recipe again."""
    with _client() as client:
        _print(client.retry(job_id), as_json=as_json)


@app.command(name="list")
def list_jobs(
    *, status: Annotated[list[str] | None, typer.Option()] = None, target: str | None = None, limit: int = 20,
    label: Annotated[list[str] | None, typer.Option(help="name:value")] = None, as_json: AsJson = False,
) -> None:
    """Jobs, newest first."""
    given = {"status": status, "target": target, "label": label}
    with _client() as client:
        jobs = list(client.merges(limit=limit, **{name: value for name, value in given.items() if value}))
    if as_json:
        print(json.dumps(jobs))
    else:
        show_list(jobs)


@app.command()
def scores(
    base: Annotated[str, typer.Argument(help="org/name or org/name@revision")],
    adapted: Annotated[str, typer.Argument(help="org/name or org/name@revision")],
    *, policy: str = "balanced", precision: str = "exact", as_json: AsJson = False,
) -> None:
    """Score a pair without merging it: what would be restored, and why."""
    method = {"name": "spear", "policy": policy, "precision": precision}
    with _client() as client:
        job = client.score({"base": _model(base), "experts": [_model(adapted)], "method": method})
        err.print(f"job {job['id']}")
        job = follow(client.watch(job["id"]))
        if job["status"] == "succeeded" and not as_json:
            show_scores(client.scores(job["id"]))
        elif job["status"] == "succeeded":
            print(json.dumps(client.scores(job["id"])))
    if job["status"] != "succeeded":
        _finish(job, as_json=as_json)


@app.command()
def verify(
    repo: Annotated[str, typer.Argument(help="org/name or org/name@revision")],
    *, key: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="the signer's public key (PEM)")],
) -> None:
    """Check a published model on the Hub: its manifest's signature, and every file that the manifest lists."""
    from app.hub.client import connected
    from app.hub.signatures import read_public
    from app.hub.signatures import verify as check

    name, _, revision = repo.partition("@")
    with connected(load()) as hubs:
        found = check(hubs.service, name, revision or "main", key=read_public(key))
    print(f"verified: {found.repo}@{found.commit}, {found.files} files of {found.job_id}, signed by key {found.key_id}")


@app.command()
def plan(
    recipe: RecipeFile, *, target: TargetRepo = None, branch: Branch = None, public: Public = False
) -> None:
    """What a merge would do: pinned commits, bytes to move, warnings, refusals. Exit status 1 if it is refused."""
    with _client() as client:
        found = client.plan(_read(recipe, target=_target(target, branch=branch, public=public)))
    out.print_json(json.dumps(found))
    if not found["accepted"]:
        raise typer.Exit(1)


def _serving() -> Settings:
    """The settings of a part of the service; without a database there is nothing to serve."""
    cores.forbid()
    settings = load()
    if not settings.database_url or not settings.redis_url:
        raise ValueError("SPEAR_DATABASE_URL and SPEAR_REDIS_URL must be set; `spear up` brings its own")
    configure(settings.log_level)
    return settings


def _client() -> Client:
    settings = load()
    if settings.api_key is None:
        raise ValueError("SPEAR_API_KEY is not set")
    return Client(settings.api_url, settings.api_key.get_secret_value())


def _model(text: str) -> dict[str, str]:
    repo, _, revision = text.partition("@")
    return {"repo": repo, "revision": revision or "main"}


def _target(repo: str | None, *, branch: str | None, public: bool) -> dict[str, Any] | None:
    if repo is None:
        if branch or public:
            raise ValueError("--branch and --public go with --target")
        return None
    return {"repo": repo, "private": not public} | ({"branch": branch} if branch else {})


def _read(recipe: Path, *, target: dict[str, Any] | None) -> dict[str, Any]:
    """The request's body: a JSON recipe as it is, or mergekit's YAML with its target beside it."""
    if recipe.suffix in (".yml", ".yaml"):
        if target is None:
            raise ValueError(f"{recipe} is a mergekit recipe, which names no target: add --target org/name")
        return {"mergekit": recipe.read_text(), "target": target}
    if target is not None:
        raise ValueError(f"--target goes with mergekit's YAML; {recipe} names its own target")
    try:
        found = json.loads(recipe.read_text())
    except ValueError as error:
        raise ValueError(f"{recipe} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{recipe} does not hold a JSON object")  # noqa: TRY004  (the user's input, not a type of ours)
    return found


def _print(job: Job, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(job))
    else:
        show(job)


def _finish(job: Job, *, as_json: bool) -> None:
    _print(job, as_json=as_json)
    if job["status"] != "succeeded":
        raise typer.Exit(1)


def main() -> None:
    """The entry point: expected errors are one line on stderr and exit status 1 (2 for wrong usage)."""
    try:
        app()
    except ApiError as error:
        show_problem(error.problem)
        sys.exit(1)
    except (SpearError, ValueError) as error:
        err.print(f"[bold red]error[/bold red]: {escape(str(error))}", soft_wrap=True)
        sys.exit(1)
    except httpx2.TransportError as error:
        err.print(f"[bold red]error[/bold red]: the service cannot be reached: {escape(str(error))}", soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
