"""What evaluations can name: lm-eval's tasks and the architectures that transformers loads, as files of this package.

`python -m worker.evaluation.catalogue` writes them anew from the installed libraries, which the API does not have.
"""

import difflib
import gzip
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from app.errors import Code, SpearError

OURS = "spear/"
"""beginning of the paths of task files that are this project's own; all others are lm-eval's"""
MAX_LEAVES = 200
_NEAR = 5


@dataclass(frozen=True)
class Leaf:
    """One task that lm-eval runs: its file, and the data set and configuration that it reads."""

    name: str
    yaml: str
    dataset: str
    config: str | None


def leaves(name: str) -> tuple[Leaf, ...]:
    """The tasks behind a name: itself, or those of a group or tag, each once.

    Raises `SpearError`: `task_unknown` with the names that look alike, `task_unsupported` for a task that cannot be
    run here, or a group with such a task or with more than `MAX_LEAVES`.
    """
    if name not in _tasks() and name not in _catalogue()["groups"]:
        _refuse(name)
    found = {leaf.name: leaf for leaf in _below(name, whole=name, seen=frozenset())}
    if len(found) > MAX_LEAVES:
        message = f"{name} stands for {len(found)} tasks; {MAX_LEAVES} are allowed: name some of them"
        raise SpearError(Code.TASK_UNSUPPORTED, message, task=name)
    return tuple(found.values())


def is_causal(model_type: str) -> bool:
    """Whether transformers has a causal language model of this type, without code from elsewhere."""
    return model_type in _catalogue()["causal"]


def versions() -> Mapping[str, str]:
    """The libraries that the files were made from."""
    found: dict[str, str] = _catalogue()["versions"]
    return found


def _below(name: str, *, whole: str, seen: frozenset[str]) -> Iterator[Leaf]:
    if name in _tasks():
        yield _tasks()[name]
        return
    if name not in _catalogue()["groups"] or name in seen:
        reason = _catalogue()["refused"].get(name, "it is no task of its own")
        message = f"{whole} cannot be run here because of {name}: {reason}"
        raise SpearError(Code.TASK_UNSUPPORTED, message, task=whole, part=name)
    for member in _catalogue()["groups"][name]:
        yield from _below(member, whole=whole, seen=seen | {name})


def _refuse(name: str) -> None:
    reason = _catalogue()["refused"].get(name)
    if reason:
        raise SpearError(Code.TASK_UNSUPPORTED, f"task {name} cannot be run here: {reason}", task=name)
    names = [*_tasks(), *_catalogue()["groups"]]
    near = difflib.get_close_matches(name, names, n=_NEAR, cutoff=0.7)
    hint = f"; near are: {', '.join(near)}" if near else ""
    known = _catalogue()["versions"]["lm-eval"]
    raise SpearError(Code.TASK_UNKNOWN, f"lm-eval {known} knows no task {name}{hint}", task=name, near=near)


@cache
def _catalogue() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(gzip.decompress((files("app.recipes") / "catalogue.json.gz").read_bytes()))
    return found


@cache
def _tasks() -> dict[str, Leaf]:
    """Every task by its name. The file gives them by folder: [file, number of the data set, configuration]."""
    names, found = _catalogue()["datasets"], {}
    for folder, tasks in _catalogue()["tasks"].items():
        for name, (file, number, config) in tasks.items():
            path = f"{folder}/{file or f'{name}.yaml'}"
            found[name] = Leaf(name=name, yaml=path, dataset=names[number], config=config)
    return found
