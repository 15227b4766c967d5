"""Arguments and options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

from app.console.completion import job_ids

AsJson = Annotated[bool, typer.Option("--json", help="print JSON on stdout, for programs")]
JobId = Annotated[str, typer.Argument(help="the job's id: mrg_..., scr_...", autocompletion=job_ids)]
RecipeFile = Annotated[
    Path, typer.Argument(
        exists=True, dir_okay=False, allow_dash=True,
        help="the recipe: a JSON file (- for stdin), or mergekit's YAML (.yml, .yaml)",
    )
]  # fmt: skip
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
