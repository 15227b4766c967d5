"""Mutations of bytes and of JSON values: what turns something valid into something that a stranger might send."""

import json
from collections.abc import Callable
from random import Random
from typing import Any

WORDS = [
    b"{", b"}", b"[", b"]", b'"', b",", b":", b"null", b"true", b"NaN", b"Infinity", b"-1", b"1e999", b"1.0",
    b"\\u0000", b"\\ud800", b"\x00", b"\xff", b"\xef\xbb\xbf", b"../", b"__metadata__", b"9" * 30, b"9" * 5000,
    b"[" * 70, b"{\"a\":" * 70,
    b"<<: *a", b"&a ", b"*a", b"!!python/object:os.system ", b"---\n", b"- ", b"\t", b"|\n", b"0x", b"1_0",
]  # fmt: skip
ODD: list[Any] = [
    None, True, False, -1, 0, 1, 2**31, 2**48, 2**63, 2**64, 10**40, -(2**63), 0.0, -0.0, 1.5, 1e308, "", "a", "..",
    "/", "a/../b", "org/name", "F32", "BF16", "\u0000", "\ud800", "é" * 600, "x" * 5_000, [], {}, [[]], [0], [0, 0],
    [1, 2, 3], {"a": 1}, {"filter": "x", "value": 1}, [{"value": [1, 2]}], [None], ["a"], "main", "mergekit",
    "spear", "linear",
]  # fmt: skip


def mutated(raw: bytes, random: Random) -> bytes:
    """`raw` with one to eight wounds: flipped, cut, doubled, swapped or foreign bytes."""
    data = bytearray(raw)
    for _ in range(random.randint(1, 8)):
        at, other = random.randrange(len(data) + 1), random.randrange(len(data) + 1)
        start, stop = min(at, other), min(max(at, other), min(at, other) + 64)
        kind = random.randrange(6)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << random.randrange(8)
        elif kind == 1:
            del data[start:stop]
        elif kind == 2:
            data[at:at] = data[start:stop]
        elif kind == 3:
            data[at:at] = random.choice(WORDS)
        elif kind == 4:
            data[start:stop] = random.randbytes(random.randint(0, 8))
        else:
            del data[max(at, 1) :]
    return bytes(data)


def varied(value: Any, random: Random) -> Any:
    """A copy of a JSON value with one to four of its places changed: another value, none, a neighbour's, one more."""
    copy = json.loads(json.dumps(value))
    for _ in range(random.randint(1, 4)):
        places = list(_places(copy))
        if not places:
            return random.choice(ODD)
        holder, key = random.choice(places)
        _CHANGES[random.randrange(len(_CHANGES))](holder, key, random, places)
    return copy


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key or index) within a value."""
    found: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting:
        holder = waiting.pop()
        if isinstance(holder, dict | list):
            keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
            found += [(holder, key) for key in keys]
            waiting += [holder[key] for key in keys]
    return found


def _replace(holder: Any, key: Any, random: Random, places: Any) -> None:
    holder[key] = json.loads(json.dumps(random.choice(ODD)))


def _drop(holder: Any, key: Any, random: Random, places: Any) -> None:
    del holder[key]


def _swap(holder: Any, key: Any, random: Random, places: Any) -> None:
    other, at = random.choice(places)
    holder[key] = json.loads(json.dumps(other[at])) if at in other or isinstance(other, list) else None


def _add(holder: Any, key: Any, random: Random, places: Any) -> None:
    value = json.loads(json.dumps(random.choice(ODD)))
    if isinstance(holder, list):
        holder.insert(key, value)
    else:
        holder[str(random.choice(ODD))[:700]] = value


def _nudge(holder: Any, key: Any, random: Random, places: Any) -> None:
    value = holder[key]
    if isinstance(value, int | float) and not isinstance(value, bool):
        holder[key] = value + random.choice([-1, 1, 7, 2**32, 0.5])
    elif isinstance(value, str):
        holder[key] = mutated(value.encode("utf-8", "replace"), random).decode("utf-8", "replace")


_CHANGES: list[Callable[[Any, Any, Random, Any], None]] = [_replace, _drop, _swap, _add, _nudge]
