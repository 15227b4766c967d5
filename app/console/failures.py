"""Expected errors as a few lines on stderr and an exit status; nobody who mistypes gets a traceback."""

import sys
from collections.abc import Callable
from typing import Any

import httpx2
from rich.markup import escape

from app.client import ApiError
from app.console.screen import Exit, err
from app.errors import KINDS, Code, SpearError

_FOR_PROGRAMS = {KINDS[code].hint for code in (Code.INVALID_REQUEST, Code.INVALID_RECIPE)}
"""hints that tell how to read the answer: people have the fields printed"""


def run(command: Callable[[], Any]) -> None:
    """Run the command line; `SystemExit` tells how it ended, as `Exit` lists."""
    try:
        command()
    except ApiError as error:
        show_problem(error.problem)
        sys.exit(Exit.AWAY if error.status >= 500 or error.status == httpx2.codes.TOO_MANY_REQUESTS else Exit.FAILED)
    except SpearError as error:
        show_error(error)
        sys.exit(Exit.AWAY if error.code is Code.HUB_UNAVAILABLE else Exit.FAILED)
    except httpx2.TransportError as error:
        _line("error", f"the service cannot be reached: {error}")
        _more("hint", "Is it running, and is SPEAR_API_URL right? `spear doctor` looks.")
        sys.exit(Exit.AWAY)
    except ValueError as error:
        _line("error", str(error))
        sys.exit(Exit.FAILED)
    except Exception as error:
        if not type(error).__module__.startswith("sqlalchemy."):  # not imported here: most commands need no database
            raise
        _line("error", f"the database does not answer: {str(error).splitlines()[0]}")
        _more("hint", "`spear doctor` looks what is wrong with it.")
        sys.exit(Exit.AWAY)


def show_problem(problem: dict[str, Any]) -> None:
    """An error of the service: its code, the fields at fault, what to do about it, what to quote to the operator."""
    _line(str(problem.get("code", "error")), str(problem.get("detail") or problem.get("title") or ""))
    for error in problem.get("errors", []):
        _more(error["pointer"] or "/", error["detail"])
    if problem.get("hint") and problem["hint"] not in _FOR_PROGRAMS:
        _more("hint", problem["hint"])
    if problem.get("request_id"):
        _more("request", problem["request_id"])


def show_error(error: SpearError) -> None:
    """The same for an error that was met on this side."""
    _line(error.code, error.message)
    if error.pointer:
        _more("at", error.pointer)
    if error.code is Code.HUB_UNAVAILABLE:
        from app.settings import load

        _more("asked", f"{load().hub_endpoint} (SPEAR_HUB_ENDPOINT names another)")
    if error.kind.hint and error.kind.hint not in _FOR_PROGRAMS:
        _more("hint", error.kind.hint)


def show_failure(failure: Any) -> None:
    """Why a job failed, as its `error` tells it."""
    _line(failure["code"], failure["message"])
    if failure["hint"]:
        _more("hint", failure["hint"])


def _line(name: str, text: str) -> None:
    err.print(f"[bold red]{escape(name)}[/bold red]: {escape(text)}", soft_wrap=True)


def _more(name: str, text: str) -> None:
    err.print(f"  {escape(name)}: {escape(text)}", soft_wrap=True)
