"""Commands about studies: `spear study run`, `show`, `export`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from app.console.merges import attend, finish, show
from app.console.options import AsJson, JobId, Wait, file_or_stdin
from app.console.recipes import read_object
from app.console.screen import emit, err, figure, out
from app.console.service import client
from app.console.tables import table

studies = typer.Typer(no_args_is_help=True, help="Studies: merges of a base and its experts, all measured.")
StudyFile = Annotated[Path, file_or_stdin("the study: a JSON file (- for stdin)")]


class Format(StrEnum):
    """What a study is exported as."""

    CSV = "csv"
    PARQUET = "parquet"
    HTML = "html"


@studies.command()
def run(study: StudyFile, *, wait: Wait = False, as_json: AsJson = False) -> None:
    """Submit a study; with --wait, follow it to its end and show its tables."""
    with client() as service:
        job = service.study(read_object(study))
        if not wait:
            show(job, as_json=as_json)
            return
        ended = attend(service, job)
        if ended["status"] == "succeeded":
            tell(service.report(job["id"]), as_json=as_json)
            return
    finish(ended, as_json=as_json)


@studies.command(name="show")
def show_study(job_id: JobId, *, as_json: AsJson = False) -> None:
    """A study's tables, or where it is."""
    with client() as service:
        job = service.get(job_id)
        if job["kind"] != "study":
            raise ValueError(f"{job_id} is of the kind {job['kind']}, not a study: see `spear show {job_id}`")
        if job["status"] == "succeeded":
            tell(service.report(job_id), as_json=as_json)
            return
    show(job, as_json=as_json)


@studies.command()
def export(
    job_id: JobId, *, format_: Annotated[Format, typer.Option("--format", help="csv, parquet or html")] = Format.CSV,
    to: Annotated[Path | None, typer.Option("--to", dir_okay=False, help="the file; else <id>.<format> here")] = None,
) -> None:
    """Every merge and task as CSV or Parquet, or all tables and pictures as one HTML page."""
    path = to or Path(f"{job_id}.{format_}")
    with client() as service:
        path.write_bytes(service.export(job_id, format=str(format_)))
    err.print(str(path))


def tell(report: dict[str, Any], *, as_json: bool) -> None:
    """The verdict and the chosen merges."""
    if as_json:
        emit(report)
        return
    out.print(escape(report["verdict"]), soft_wrap=True)
    rows, kind = list[tuple[str, ...]](), report["main_kind"]
    for one in report["outcomes"]:
        settings = ", ".join(f"{name} {value:g}" for name, value in one["settings"].items())
        names = " + ".join(repo.partition("/")[2] for repo in one["experts"])
        figures = [figure(one["macro"][kind][what]["value"]) for what in ("gain", "og")]
        counts = ["-" if one[what] is None else str(one[what]) for what in ("emerged", "lost")]
        rows.append((str(one["stage"]), escape(names), one["method"], settings, *figures, *counts))
    table(("stage", "experts", "method", "settings", "Gain", "OG", "emerged", "lost"), rows)
