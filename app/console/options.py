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


def flag(*names: str, words: str) -> Any:
    """An option that takes no value, and whose help names none."""
    return typer.Option(*names, metavar="", help=words)


def file_or_stdin(words: str) -> Any:
    """An argument that is a file or `-`."""
    return typer.Argument(callback=_there, help=words)


AsJson = Annotated[bool, flag("--json", words="print JSON on stdout, for programs")]
JobId = Annotated[str, typer.Argument(help="the job's id: mrg_..., scr_..., evl_..., std_...", autocompletion=job_ids)]
RecipeFile = Annotated[
    Path, file_or_stdin("the recipe: a JSON file (- for stdin), or mergekit's YAML (.yml, .yaml)")
]
TargetRepo = Annotated[str | None, typer.Option("--target", help="where a mergekit YAML's result goes: org/name")]
Branch = Annotated[str | None, typer.Option(help="the target's branch, with --target")]
Public = Annotated[bool, flag("--public", words="make the target public, with --target")]
Wait = Annotated[bool, flag("--wait", words="follow the job to its end")]
HubToken = Annotated[
    Path | None, typer.Option(
        "--hub-token-file", exists=True, dir_okay=False,
        help="a file with a Hub token of your own, which this one job acts with",
    )
]  # fmt: skip
SERVICE, JOBS, MODELS = "The service", "Jobs", "Models"
"""the groups in which `spear --help` lists the commands"""
