"""`spear doctor`: what is wrong with this machine, and what to do about it."""

from typing import TYPE_CHECKING

import typer
from rich.markup import escape

from app.console.options import SERVICE, AsJson
from app.console.screen import Exit, emit, err, out

if TYPE_CHECKING:
    from app.doctor.finding import Finding

MARKS = {"ok": "[green]ok[/green]     ", "warning": "[yellow]warning[/yellow]", "failed": "[red]failed[/red] ",
         "skipped": "[dim]skipped[/dim]"}  # fmt: skip

app = typer.Typer()


@app.command(rich_help_panel=SERVICE)
def doctor(*, as_json: AsJson = False) -> None:
    """Look at this machine: settings, database, broker, Hub, disk, GPU, versions. Exit status 1 if anything failed.

    Changes nothing, and works on an API's, a worker's and a client's machine alike.
    """
    from app.doctor.checks import examine

    found = []
    for each in examine():
        found.append(each)
        if not as_json:
            _tell(each)
    failed = sum(each.state == "failed" for each in found)
    warned = sum(each.state == "warning" for each in found)
    if as_json:
        emit({"healthy": not failed, "failed": failed, "warnings": warned, "checks": [one.document() for one in found]})
    else:
        err.print(f"{len(found)} checks, {failed} failed, {warned} with a warning")
    if failed:
        raise typer.Exit(Exit.FAILED)


def _tell(each: "Finding") -> None:
    out.print(f"{MARKS[each.state]} {each.area:9} {escape(each.name)}: {escape(each.detail)}", soft_wrap=True)
    if each.cure:
        out.print(f"        {'':9} -> {escape(each.cure)}", soft_wrap=True)
