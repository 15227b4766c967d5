"""JSON as strangers write it, read strictly: valid UTF-8, no duplicate keys, finite numbers, bounded depth and size."""

import json
import math
from typing import Any, NoReturn

from app.errors import Code, SpearError

MAX_DEPTH = 64
MAX_VALUES = 5_000_000
"""An empty list takes three bytes of text and 64 of memory: what a text may become is bounded before it is parsed."""
_SHOWN = 200


def parse_object(
    raw: bytes, *, code: Code, file: str, max_depth: int = MAX_DEPTH, max_values: int = MAX_VALUES
) -> dict[str, Any]:
    """The JSON object in `raw`; raises `SpearError(code)` naming `file` for all else, and as `check_values` does."""
    check_values(raw, file=file, limit=max_values)
    try:
        value = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_constant, parse_float=_finite
        )
    except UnicodeDecodeError as error:
        raise SpearError(code, f"{file} is not UTF-8 (byte {error.start})", file=file) from None
    except RecursionError:
        raise SpearError(code, f"{file} is nested too deeply", file=file) from None
    except ValueError as error:
        raise SpearError(code, f"{file} is not valid JSON: {error}", file=file) from None
    if not isinstance(value, dict):
        raise SpearError(code, f"{file} must hold a JSON object", file=file)
    if not _within(value, max_depth):
        raise SpearError(code, f"{file} is nested deeper than {max_depth} levels", file=file)
    return value


def check_values(raw: bytes, *, file: str, limit: int) -> None:
    """Raises `SpearError(LIMIT_EXCEEDED)` for more than `limit` members, items and containers in a JSON text.

    They are counted in the text before it is parsed, so that those within strings count too.
    """
    count = sum(map(raw.count, (b",", b"[", b"{")))
    if count > limit:
        words = f"{file} holds {count} values; {limit} are allowed"
        raise SpearError(Code.LIMIT_EXCEEDED, words, file=file, limit="max_json_values")


def shown(value: Any) -> str:
    """A stranger's value in a message: short, in one line, without characters that cannot be printed."""
    try:
        text = str(value)
    except ValueError:  # a whole number of more digits than Python writes
        text = "a number too large to be written"
    text = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is too large a number")
    return number


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:200]!r} stands there twice")
    return found


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _within(value: Any, depth: int) -> bool:
    """Whether nesting ends within `depth` levels; a loop over levels, so that depth itself cannot hurt."""
    level = [value]
    for _ in range(depth):
        level = [child for node in level for child in _children(node)]
        if not level:
            return True
    return False


def _children(node: Any) -> list[Any]:
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return [child for child in children if isinstance(child, dict | list)]
