"""`spear reproduce`: a published merge made again, here or by the service, and its digests compared."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer
from rich.markup import escape

from app.client.types import Job
from app.console.follow import View, view
from app.console.merges import attend
from app.console.options import MODELS, AsJson, flag
from app.console.screen import Exit, emit, err, out
from app.console.service import client

if TYPE_CHECKING:
    from app.reproduce.outcome import Difference, Outcome
    from app.reproduce.run import Reproduction

SHOWN = 12
"""differences of one kind that are printed; --json has all"""

app = typer.Typer()
Repo = Annotated[str, typer.Argument(help="a published merge: org/name or org/name@revision")]
Target = Annotated[str | None, typer.Option(
    help="let the service do it, into this repository: org/name or org/name@branch"
)]  # fmt: skip
Mirrors = Annotated[list[str] | None, typer.Option(
    "--input", help="read an input from elsewhere: org/name=org/mirror@revision; repeatable"
)]  # fmt: skip
Folder = Annotated[Path | None, typer.Option(file_okay=False, help="where to work, and to keep what was made")]
Threads = Annotated[int, typer.Option(min=1, help="processes that compute scores, with --rescore")]
DeviceName = Annotated[Literal["auto", "cpu", "cuda"] | None, typer.Option(help="without it, the device of then")]
Rescore = Annotated[bool, flag("--rescore", words="decide anew what to restore; do not replay the decisions")]
Cached = Annotated[bool, flag(
    "--cached", words="take files that were downloaded before from the data directory; their bytes are checked"
)]  # fmt: skip
Anyway = Annotated[bool, flag("--anyway", words="go on where an input differs, to see what comes of it")]


@app.command(rich_help_panel=MODELS)
def reproduce(
    repo: Repo, *, target: Target = None, mirror: Mirrors = None, folder: Folder = None, threads: Threads = 1,
    device: DeviceName = None, rescore: Rescore = False, cached: Cached = False, anyway: Anyway = False,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Make a published merge again and compare digests: exit status 0 only if every file comes out equal.

    The manifest's pinned inputs are checked first, then its recipe and decisions are run again: on this machine, which
    needs torch, or by the service with --target.
    """
    from app.hub.client import connected
    from app.hub.manifest import read_published
    from app.reproduce.run import Reproduction
    from app.reproduce.service import refuse_rescore
    from app.reproduce.sources import parse_mirrors
    from app.settings import load

    settings, mirrors = load(), parse_mirrors(mirror or ())
    if target and (mirrors or anyway or folder):
        raise ValueError("--input, --anyway and --folder are for a run on this machine: leave out --target")
    name, _, revision = repo.partition("@")
    with connected(settings) as hubs:
        published = read_published(hubs.service, name, revision or "main")
        if rescore:
            refuse_rescore(published.manifest)
        made = Reproduction(hub=hubs.service, settings=settings, published=published)
        if target:
            found = _by_the_service(made, target=target, rescore=rescore)
        else:
            found = _here(
                made, mirrors, folder=folder, threads=threads, device=device, rescore=rescore, cached=cached,
                go_on=anyway,
            )
    emit(found.document()) if as_json else _tell(found)
    if not found.equal:
        raise typer.Exit(Exit.FAILED)


def _by_the_service(made: "Reproduction", *, target: str, rescore: bool) -> "Outcome":
    from app.reproduce.service import recipe_again

    found = made.begin(way="service")
    found.differences += made.check_published() + made.check_inputs({})[1]
    if any(difference.what == "input" for difference in found.differences):
        return found
    place, _, branch = target.partition("@")
    body = recipe_again(made.published, target=place, branch=branch or "main", rescore=rescore)
    with client() as service:
        job = attend(service, service.submit(body))
    found.again = job["id"]
    if job["status"] != "succeeded" or job["result"] is None:
        failure = job["error"]
        raise ValueError(f"{job['id']} {job['status']}: {failure['message'] if failure else 'it was not finished'}")
    made.judge_job(found, repo=str(job["result"]["repo"]), commit=str(job["result"]["commit"]))
    return found


def _here(
    made: "Reproduction", mirrors: dict[str, tuple[str, str]], *, folder: Path | None, threads: int,
    device: Literal["auto", "cpu", "cuda"] | None, rescore: bool, cached: bool, go_on: bool,
) -> "Outcome":  # fmt: skip
    from app.reproduce.here import refuse_without_torch

    refuse_without_torch()
    found = made.begin(way="here")
    inputs, differences = made.check_inputs(mirrors)
    found.differences += made.check_published() + differences
    lost = len(inputs) < len(made.manifest.inputs)
    if lost or (differences and not go_on):
        return found
    home = made.settings.home / "reproduce"
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _working(folder, home=home) as place, _Stages(made.manifest.job_id) as stages:
        made.run_here(
            inputs, found, folder=place, threads=threads, device=device, rescore=rescore, cached=cached,
            tell=stages.tell, go_on=go_on,
        )
    return found


@contextmanager
def _working(folder: Path | None, *, home: Path) -> Iterator[Path]:
    """The folder that was named, which stays; else one of our own, which goes."""
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise ValueError(f"{folder} is not empty")
        yield folder.absolute()
        return
    place = Path(tempfile.mkdtemp(dir=home))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


class _Stages:
    """A run on this machine, drawn like a job."""

    def __init__(self, job_id: str) -> None:
        self._job: dict[str, Any] = {"id": job_id, "status": "running", "stage": None, "stages": [], "progress": None}
        self._view: View = view()
        self._began = datetime.now(UTC)

    def __enter__(self) -> "_Stages":
        self._view.__enter__()
        return self

    def __exit__(self, *how: object) -> None:
        self._end()
        self._view.tell(cast("Job", self._job))
        self._view.__exit__(None, None, None)

    def tell(self, name: str, done: float, total: float, unit: str) -> None:
        """Work done in a stage; a new name begins the next one."""
        if name != self._job["stage"]:
            self._end()
            self._began = datetime.now(UTC)
            stage = {"name": name, "attempt": 1, "started_at": self._began.isoformat(), "ended_at": None}
            self._job["stages"] = [*self._stages, stage]
        spent, share = (datetime.now(UTC) - self._began).total_seconds(), done / total if total else 1.0
        eta = spent / share - spent if share and spent > 1 else None
        progress = {"percent": 100 * min(share, 1.0), "done": done, "total": total, "unit": unit, "eta_seconds": eta}
        self._job |= {"stage": name, "progress": progress}
        self._view.tell(cast("Job", self._job))

    @property
    def _stages(self) -> list[dict[str, object]]:
        return cast("list[dict[str, object]]", self._job["stages"])

    def _end(self) -> None:
        if self._stages and not self._stages[-1]["ended_at"]:
            self._stages[-1]["ended_at"] = datetime.now(UTC).isoformat()


def _tell(found: "Outcome") -> None:
    """The verdict on stdout, what differs below it."""
    place = f"{found.repo}@{found.commit[:12]} ({found.job_id})"
    if found.equal:
        weights = sum(path.endswith(".safetensors") for path in found.files)
        others = len(found.files) - weights
        out.print(f"equal: {weights} weight files and {others} others of {place} came out again", soft_wrap=True)
    else:
        first = "differs" if found.ran else "not run"
        out.print(f"{first}: {place}", soft_wrap=True)
    for kind in dict.fromkeys(difference.what for difference in found.differences):
        _tell_kind([each for each in found.differences if each.what == kind])
    for name, (then, now) in found.engine.items():
        err.print(f"note: {name} was {then or 'not told'}, now {now or 'not told'}", soft_wrap=True)
    if not found.ran and any(each.what == "input" for each in found.differences):
        err.print("An input is not what it was, so the result cannot be the same. --anyway goes on.", soft_wrap=True)


def _tell_kind(differences: "list[Difference]") -> None:
    for each in differences[:SHOWN]:
        out.print(f"  {escape(str(each))}", soft_wrap=True)
    if len(differences) > SHOWN:
        out.print(f"  ... and {len(differences) - SHOWN} more of this kind (--json has all)")
