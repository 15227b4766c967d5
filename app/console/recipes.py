"""From a file to the body of a request."""

import json
import sys
from pathlib import Path
from typing import Any


def read(recipe: Path, *, target: dict[str, Any] | None) -> dict[str, Any]:
    """The request's body: a JSON recipe as it is, or mergekit's YAML with its target beside it.

    Raises `ValueError` saying what to change.
    """
    if recipe.suffix in (".yml", ".yaml"):
        if target is None:
            raise ValueError(f"{recipe} is a mergekit recipe, which names no target: add --target org/name")
        return {"mergekit": recipe.read_text(), "target": target}
    if target is not None:
        raise ValueError(f"--target goes with mergekit's YAML; {recipe} names its own target")
    return read_object(recipe)


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object in a file, or on stdin for `-`."""
    name = "stdin" if str(file) == "-" else str(file)
    try:
        found = json.loads(sys.stdin.read() if name == "stdin" else file.read_text())
    except ValueError as error:
        raise ValueError(f"{name} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{name} does not hold a JSON object")  # noqa: TRY004  (the user's input, not a type of ours)
    return found


def target_of(repo: str | None, *, branch: str | None, public: bool) -> dict[str, Any] | None:
    """The target that the options name, if they name one."""
    if repo is None:
        if branch or public:
            raise ValueError("--branch and --public go with --target")
        return None
    return {"repo": repo, "private": not public} | ({"branch": branch} if branch else {})


def model(text: str) -> dict[str, str]:
    """`org/name` or `org/name@revision`."""
    repo, _, revision = text.partition("@")
    return {"repo": repo, "revision": revision or "main"}
