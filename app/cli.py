"""`spear`: the service's parts, and its client. The commands are in `app.console`, one file per noun."""

from typing import Annotated

import typer

from app.console import doctor, jobs, merges, parts, published, reproduce
from app.console.failures import run
from app.console.keys import keys
from app.console.options import JOBS, SERVICE
from app.console.studies import studies

app = typer.Typer(
    no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False, rich_markup_mode="rich",
    help="Merge models after fine-tuning: the client of the service, and the service itself. "
    "Exit status: 0 success, 1 it failed or was refused, 2 wrong usage, 3 something is away, 130 interrupted.",
)  # fmt: skip
for commands in (merges, jobs, published, reproduce, parts, doctor):
    app.add_typer(commands.app)
app.add_typer(studies, name="study", rich_help_panel=JOBS)
app.add_typer(keys, name="keys", rich_help_panel=SERVICE)


def _version(wanted: bool) -> None:
    from importlib.metadata import version

    if wanted:
        print(version("spear-merge"))
        raise typer.Exit


@app.callback()
def spear(
    *, version: Annotated[
        bool, typer.Option(
            "--version", metavar="", callback=_version, is_eager=True, help="print the version and stop"
        )
    ] = False,
) -> None:  # fmt: skip
    """What all commands share."""
    del version


def main() -> None:
    """The entry point: expected errors are a few lines on stderr, never a traceback."""
    run(app)


if __name__ == "__main__":
    main()
