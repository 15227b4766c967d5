"""Commands that run the service, whole or part by part."""

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from app.console.options import SERVICE, flag
from app.console.service import serving

app = typer.Typer()


@app.command(rich_help_panel=SERVICE)
def up(
    *, port: Annotated[int, typer.Option(help="of the API and its pages; a local Hub takes the next")] = 8000,
    data_dir: Annotated[Path | None, typer.Option(help="where everything is kept [~/.local/share/spear]")] = None,
    workers: Annotated[int, typer.Option(min=1, help="processes that take jobs")] = 1,
    local_hub: Annotated[bool, flag("--local-hub", words="bring a Hub of its own, for trying things out")] = False,
    as_json: Annotated[bool, flag("--json", words="print the ready line as JSON")] = False,
) -> None:
    """The whole service on this machine."""
    from app import cores
    from app.local.stack import run
    from app.logs import configure
    from app.settings import load

    cores.forbid()
    settings = load() if data_dir is None else load(data_dir=data_dir)
    configure(settings.log_level)
    run(settings, port=port, workers=workers, local_hub=local_hub, as_json=as_json)


@app.command(rich_help_panel=SERVICE)
def api(
    *, host: Annotated[str, typer.Option(help="the address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option()] = 8000,
) -> None:
    """The HTTP API."""
    import uvicorn

    from app.main import create_app

    settings = serving()
    uvicorn.run(create_app(settings), host=host, port=port, access_log=False, log_config=None)


@app.command(rich_help_panel=SERVICE)
def worker(
    *, name: Annotated[str, typer.Option(help="how it is called among the workers")] = "spear-worker"
) -> None:
    """A worker: takes jobs one at a time. SIGTERM hands the running job back."""
    serving()
    name = name if name.startswith("spear-worker") else f"spear-worker-{name}"
    os.execv(sys.executable, [sys.executable, "-P", "-m", "worker", "--name", name])  # noqa: S606  (no shell)


@app.command(rich_help_panel=SERVICE)
def sweep() -> None:
    """The sweep: rescues jobs whose worker is gone and announces those that nobody has heard of."""
    from app.queue.sweep import run

    settings, stop = serving(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    run(settings, stop=stop)


@app.command(rich_help_panel=SERVICE)
def migrate() -> None:
    """Bring the database to the newest schema; a table that is in use is waited for up to a minute."""
    from app.jobs.migrate import upgrade

    upgrade(serving().database_url, patience_seconds=60)
