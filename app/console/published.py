"""Commands about models that were published."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from app.console.options import MODELS, AsJson
from app.console.screen import emit

app = typer.Typer()
Repo = Annotated[str, typer.Argument(help="org/name or org/name@revision")]


@app.command(rich_help_panel=MODELS)
def verify(
    repo: Repo, *,
    key: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="the signer's public key (PEM)")],
    as_json: AsJson = False,
) -> None:
    """Check a published model on the Hub: its manifest's signature, and every file that the manifest lists."""
    from app.hub.client import connected
    from app.hub.signatures import read_public
    from app.hub.signatures import verify as check
    from app.settings import load

    name, _, revision = repo.partition("@")
    with connected(load()) as hubs:
        found = check(hubs.service, name, revision or "main", key=read_public(key))
    if as_json:
        emit(asdict(found))
        return
    print(f"verified: {found.repo}@{found.commit}, {found.files} files of {found.job_id}, signed by key {found.key_id}")
