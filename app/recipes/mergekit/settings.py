"""Parameter values: a scalar, a list over depth, or conditionals by filter; and which of several places counts."""

import math
from collections.abc import Sequence
from typing import Any

from app.recipes.mergekit.contracts import REQUIRED
from app.recipes.mergekit.document import Entry
from app.recipes.mergekit.models import fields


def combine(scopes: Sequence[Entry], *, default: Any) -> Any:
    """The value for a recipe from the places where it stands, the strongest first; `REQUIRED` where there is none.

    Where the conditionals of one place match no tensor, mergekit goes on to the next place and last to the default:
    here they become one list of conditionals, of which the first that matches counts.
    """
    conditionals: list[dict[str, Any]] = []
    for entry in scopes:
        value = _value(entry)
        if isinstance(value, list) and (not value or isinstance(value[0], dict)):
            conditionals += value
            if any(one.get("filter") in (None, "*") for one in value):
                return conditionals
        else:
            return [*conditionals, {"value": value}] if conditionals else value
    if conditionals and default is not REQUIRED:
        conditionals.append({"value": default})
    return conditionals or REQUIRED


def _value(entry: Entry) -> Any:
    if isinstance(entry.value, dict):
        return [_conditional(entry)]
    if not isinstance(entry.value, list):
        return _scalar(entry)
    if any(isinstance(part.value, dict) for part in entry.value):
        return [_conditional(part) for part in entry.value]
    return [_number(part) for part in entry.value]


def _conditional(entry: Entry) -> dict[str, Any]:
    parts = fields(entry, known=("filter", "value"))
    if "value" not in parts:
        raise entry.refuse("has no value")
    value = parts["value"]
    found: dict[str, Any] = {}
    if "filter" in parts:
        if not isinstance(parts["filter"].value, str):
            raise parts["filter"].refuse("a filter is text")
        found["filter"] = parts["filter"].value
    if isinstance(value.value, list):
        if not value.value:
            raise value.refuse("an empty list has no value")
        return found | {"value": [_number(part) for part in value.value]}
    return found | {"value": _number(value)}


def _number(entry: Entry) -> float:
    found = _scalar(entry)
    if isinstance(found, str):
        raise entry.refuse(f"{found[:80]!r} is not a number")
    return found  # type: ignore[no-any-return]  # a float, an int or a boolean: numbers to mergekit, all of them


def _scalar(entry: Entry) -> Any:
    """As it is; but 1e-5, which is text to YAML 1.1, is the number that was meant."""
    value = entry.value
    if value is None or isinstance(value, list | dict):
        raise entry.refuse("has no value" if value is None else "must be a single value")
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return value
    if isinstance(value, float) and not math.isfinite(value):
        raise entry.refuse("must be a finite number")
    return value
