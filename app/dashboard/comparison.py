"""Two jobs side by side: in what they were asked differently, and in what that ended. Pure."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.dashboard.evaluation import tasks_of
from app.dashboard.headline import Fact

IGNORED = ("labels", "webhook", "target")
"""parts of a recipe that do not change what is computed"""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One field, or one figure, of both."""

    name: str
    a: str
    b: str


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Which tensors both restored, and which one alone."""

    both: int
    only_a: Sequence[str]
    only_b: Sequence[str]


def recipe_differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Difference]:
    """The fields in which two recipes differ, by their JSON pointers; those that change nothing apart."""
    left, right = dict(_flat(a)), dict(_flat(b))
    names = sorted(name for name in left.keys() | right.keys() if left.get(name) != right.get(name))
    return [
        Difference(name=name, a=left.get(name, "-"), b=right.get(name, "-"))
        for name in names
        if name.split("/")[1] not in IGNORED
    ]


def fact_pairs(a: Sequence[Fact], b: Sequence[Fact]) -> list[Difference]:
    """The figures of both headlines, each name once."""
    left, right = {fact.name: fact.value for fact in a}, {fact.name: fact.value for fact in b}
    return [Difference(name=name, a=left.get(name, "-"), b=right.get(name, "-")) for name in left | right]


def overlap(a: Sequence[Mapping[str, Any]], b: Sequence[Mapping[str, Any]]) -> Overlap:
    """Of the restored tensors of two tables of scores."""
    left, right = ({str(row.get("name")) for row in rows if row.get("selected")} for rows in (a, b))
    return Overlap(both=len(left & right), only_a=sorted(left - right), only_b=sorted(right - left))


def task_pairs(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Difference]:
    """What each task gave of both: retained or kept, with intervals."""
    left, right = ({f"{t.name} ({t.role})": _share(t.share) for t in tasks_of(one)} for one in (a, b))
    return [Difference(name=name, a=left.get(name, "-"), b=right.get(name, "-")) for name in left | right]


def _share(share: Mapping[str, Any]) -> str:
    if share.get("value") is None:
        return "-"
    ends = "" if share.get("low") is None else f" ({share['low']:.3f} to {share['high']:.3f})"
    return f"{share['value']:.3f}{ends}"


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, one in value.items():
            yield from _flat(one, f"{path}/{name}")
    elif isinstance(value, list) and any(isinstance(one, dict | list) for one in value):
        for i, one in enumerate(value):
            yield from _flat(one, f"{path}/{i}")
    elif value is not None:
        yield path, value if isinstance(value, str) else json.dumps(value)
