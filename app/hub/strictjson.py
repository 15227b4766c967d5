"""JSON as strangers write it, read strictly: valid UTF-8, no duplicate keys, no NaN, bounded depth."""

import json
from typing import Any, NoReturn

from app.errors import Code, SpearError

MAX_DEPTH = 64


def parse_object(raw: bytes, *, code: Code, file: str, max_depth: int = MAX_DEPTH) -> dict[str, Any]:
    """The JSON object in `raw`; raises `SpearError(code)` naming `file` for anything else."""
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_constant)
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
