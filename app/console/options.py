"""Arguments and options that several commands have."""

from pathlib import Path
from typing import Annotated, Any

import typer

from app.console.completion import job_ids


def _there(file: Path) -> Path:
    """A file, or `-`; else wrong usage."""
    if str(file) != "-" and not file.is_file():
        raise typer.BadParameter(f"file '{file}' does not exist.")
    return file


def file_or_stdin(words: str) -> Any:
    """An argument that is a file or `-`."""
    return typer.Argument(callback=_there, help=words)


AsJson = Annotated[bool, typer.Option("--json", help="print JSON on stdout, for programs")]
JobId = Annotated[str, typer.Argument(help="the job's id: mrg_..., scr_...", autocompletion=job_ids)]
RecipeFile = Annotated[
    Path, file_or_stdin("the recipe: a JSON file (- for stdin), or mergekit's YAML (.yml, .yaml)")
]
TargetRepo = Annotated[str | None, typer.Option("--target", help="where a mergekit YAML's result goes: org/name")]
Branch = Annotated[str | None, typer.Option(help="the target's branch, with --target")]
Public = Annotated[bool, typer.Option("--public", help="make the target public, with --target")]
Wait = Annotated[bool, typer.Option("--wait", help="follow the job to its end")]
HubToken = Annotated[
    Path | None, typer.Option(
        "--hub-token-file", exists=True, dir_okay=False,
        help="a file with a Hub token of your own, which this one job acts with",
    )
]  # fmt: skip
SERVICE, JOBS, MODELS = "The service", "Jobs", "Models"
"""the groups in which `spear --help` lists the commands"""
