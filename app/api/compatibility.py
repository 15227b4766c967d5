"""What in a new description of the API breaks those who call by an old one."""

from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]
_METHODS = ("get", "put", "post", "delete", "patch")
_BOUNDS = {"maximum": 1, "maxLength": 1, "maxItems": 1, "minimum": -1, "minLength": -1, "minItems": -1}


def operations(document: Json) -> Iterator[tuple[str, str, Json]]:
    """Each operation with its path and method."""
    for path, methods in document["paths"].items():
        for method in _METHODS:
            if method in methods:
                yield path, method, methods[method]


def breaks(old: Json, new: Json) -> list[str]:
    """What callers of `old` would stumble over in `new`; empty if nothing."""
    return list(_Comparison(old, new).run())


class _Comparison:
    """Requests may come to allow more, answers to tell more; never the other way round."""

    def __init__(self, old: Json, new: Json) -> None:
        self._old, self._new = old, new
        self._seen: set[tuple[str, str, bool]] = set()

    def run(self) -> Iterator[str]:
        there = {(path, method): operation for path, method, operation in operations(self._new)}
        for path, method, operation in operations(self._old):
            where = f"{method.upper()} {path}"
            if (path, method) not in there:
                yield f"{where} is gone"
                continue
            yield from self._operation(where, operation, there[path, method])

    def _operation(self, where: str, old: Json, new: Json) -> Iterator[str]:
        yield from self._parameters(where, old, new)
        before, after = old.get("requestBody", {}), new.get("requestBody", {})
        if after.get("required") and not before.get("required"):
            yield f"{where} needs a body"
        yield from self._contents(f"{where} body", before, after, asked=True)
        for status, answer in old["responses"].items():
            if status not in new["responses"]:
                yield f"{where} answers {status} no more"
            else:
                yield from self._contents(f"{where} {status}", answer, new["responses"][status], asked=False)

    def _parameters(self, where: str, old: Json, new: Json) -> Iterator[str]:
        before = {(one["in"], one["name"]): one for one in old.get("parameters", [])}
        after = {(one["in"], one["name"]): one for one in new.get("parameters", [])}
        for key, one in before.items():
            if key not in after:
                yield f"{where} takes {key[1]} no more"
            else:
                yield from self._schema(f"{where} {key[1]}", one["schema"], after[key]["schema"], asked=True)
        for key, one in after.items():
            if one.get("required") and not before.get(key, {}).get("required"):
                yield f"{where} needs {key[1]}"

    def _contents(self, where: str, old: Json, new: Json, *, asked: bool) -> Iterator[str]:
        for kind, content in old.get("content", {}).items():
            if kind not in new.get("content", {}):
                yield f"{where} has no {kind} any more"
            else:
                yield from self._schema(
                    where, content.get("schema", {}), new["content"][kind].get("schema", {}), asked=asked
                )

    def _schema(self, where: str, old: Json, new: Json, *, asked: bool) -> Iterator[str]:
        key = (str(old.get("$ref", "")), str(new.get("$ref", "")), asked)
        if "$ref" in old and key in self._seen:
            return
        self._seen.add(key)
        before, after = _resolved(old, self._old), _resolved(new, self._new)
        yield from _values(where, before, after, asked=asked)
        yield from self._fields(where, before, after, asked=asked)
        for word in ("items", "additionalProperties"):
            if isinstance(before.get(word), dict) and isinstance(after.get(word), dict):
                yield from self._schema(f"{where}[]", before[word], after[word], asked=asked)
        yield from self._alternatives(where, before, after, asked=asked)

    def _fields(self, where: str, old: Json, new: Json, *, asked: bool) -> Iterator[str]:
        there = new.get("properties", {})
        for name, schema in old.get("properties", {}).items():
            if name in there:
                yield from self._schema(f"{where}.{name}", schema, there[name], asked=asked)
            elif not asked or new.get("additionalProperties") is False:
                yield f"{where}.{name} is gone"
        before, after = set(old.get("required", [])), set(new.get("required", []))
        for name in sorted(after - before if asked else (before - after) & set(there)):
            yield f"{where}.{name} is needed now" if asked else f"{where}.{name} may be missing now"

    def _alternatives(self, where: str, old: Json, new: Json, *, asked: bool) -> Iterator[str]:
        """Alternatives are known by what they refer to, or by their type."""
        before, after = _named(old), _named(new)
        for name in sorted(before.keys() & after.keys()):
            yield from self._schema(where, before[name], after[name], asked=asked)
        if before and after:
            for name in sorted(before.keys() - after.keys() if asked else after.keys() - before.keys()):
                yield f"{where} takes no {name} any more" if asked else f"{where} may be {name} now"


def _values(where: str, old: Json, new: Json, *, asked: bool) -> Iterator[str]:
    before, after = _enumerated(old), _enumerated(new)
    if before is not None and after is not None:
        yield from (f"{where}: the value {value} is gone" for value in sorted(before - after))
    kinds = ({old["type"]} if "type" in old else set(), {new["type"]} if "type" in new else set())
    if all(kinds) and kinds[0] != kinds[1] and {*kinds[0], *kinds[1]} != {"integer", "number"}:
        yield f"{where} was {old['type']} and is {new['type']}"
    if asked and new.get("additionalProperties") is False and old.get("additionalProperties") is not False:
        yield f"{where} takes no other fields any more"
    for word, sign in _BOUNDS.items():
        if asked and word in new and sign * new[word] < sign * old.get(word, sign * float("inf")):
            yield f"{where}: {word} was {old.get(word, 'open')} and is {new[word]}"


def _enumerated(schema: Json) -> set[str] | None:
    values = schema.get("enum", [schema["const"]] if "const" in schema else None)
    return None if values is None else {str(value) for value in values}


def _named(schema: Json) -> dict[str, Json]:
    found = [*schema.get("anyOf", []), *schema.get("oneOf", [])]
    return {str(one.get("$ref") or one.get("const") or one.get("type")): one for one in found}


def _resolved(schema: Json, document: Json) -> Json:
    while "$ref" in schema:
        found = document
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        schema = found
    return schema
