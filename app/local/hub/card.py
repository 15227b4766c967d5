"""The front matter of README.md, which the Hub shows as the repository's card data."""

import math
import re
from typing import Any

import yaml

from app.local.hub.git import File
from app.local.hub.repository import Repository

_FRONT = re.compile(r"\A\s*---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_MAX_BYTES = 1_000_000
_MAX_VALUES = 100_000


def read(repository: Repository, readme: File | None) -> dict[str, Any]:
    """The card data; empty where there is no README or it has no valid front matter."""
    if readme is None or readme.size > _MAX_BYTES:
        return {}
    try:
        data = _front_matter(repository.content(readme).read_bytes().decode(errors="replace"))
    except yaml.YAMLError:
        return {}
    # dates, infinities and the like have no JSON form
    return {str(key): value for key, value in data.items() if _plain(value)} if isinstance(data, dict) else {}


def tags(data: dict[str, Any]) -> list[str]:
    """The tags that the Hub derives from card data."""
    named = data.get("tags")
    found = [str(tag) for tag in named] if isinstance(named, list) else []
    if isinstance(data.get("license"), str):
        found.append(f"license:{data['license']}")
    bases = data.get("base_model")
    return found + [f"base_model:{base}" for base in (bases if isinstance(bases, list) else [bases]) if base]


def problem(readme: str) -> str | None:
    """What is wrong with the front matter, if anything."""
    try:
        data = _front_matter(readme)
    except yaml.YAMLError as error:
        return f"The front matter is not valid YAML: {error}"
    return None if isinstance(data, dict | None) else "The front matter must be a mapping"


def _front_matter(readme: str) -> Any:
    """The front matter's value. Raises `yaml.YAMLError`, also for what would grow without bound once written out."""
    found = _FRONT.match(readme)
    if found is None:
        return None
    try:
        if any(getattr(event, "value", "") == "<<" for event in yaml.parse(found[1], Loader=yaml.SafeLoader)):
            raise yaml.YAMLError("merge keys are not accepted")
        data = yaml.safe_load(found[1])
        if _weight(data, {}) > _MAX_VALUES:
            raise yaml.YAMLError("its aliases stand for too many values")
    except (RecursionError, ValueError) as error:  # nested too deeply, or an impossible date
        raise yaml.YAMLError(str(error)) from error
    return data


def _weight(value: Any, known: dict[int, int]) -> int:
    """How many values there are once aliases are written out; too many for one that contains itself."""
    if not isinstance(value, list | dict):
        return 1
    if id(value) not in known:
        known[id(value)] = _MAX_VALUES + 1
        items = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_weight(item, known) for item in items)
    return known[id(value)]


def _plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_plain, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and _plain(item) for key, item in value.items())
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, str | int)
