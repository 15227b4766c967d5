"""YAML as strangers write it, read as data: every value knows its line and its key. Pure.

One document, mappings with unique text keys, plain scalars; aliases are followed within the bounds on size and depth.
"""

from dataclasses import dataclass
from datetime import date
from typing import Any

import yaml

from app.errors import Code, SpearError

MAX_CHARACTERS = 65_536
MAX_NODES = 20_000
MAX_DEPTH = 16
_LARGEST = 2**63
_PLAIN = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
_MERGE = "tag:yaml.org,2002:merge"


@dataclass(frozen=True)
class Entry:
    """One value: a `dict` of entries by key, a `list` of entries, or a scalar; `line` counts from 1.

    `key` is the path to it, `models[1].parameters.weight`; the whole document has the empty path.
    """

    value: Any
    line: int
    key: str

    @property
    def plain(self) -> Any:
        """The value without lines: dictionaries, lists and scalars."""
        if isinstance(self.value, dict):
            return {key: entry.plain for key, entry in self.value.items()}
        if isinstance(self.value, list):
            return [entry.plain for entry in self.value]
        return self.value

    def refuse(self, reason: str) -> SpearError:
        """The error for this value, which names its line and key."""
        return refusal(self.line, self.key, reason)


def refusal(line: int, key: str, reason: str) -> SpearError:
    """`SpearError(invalid_recipe)` with line and key in its message and its names; the pointer is `/mergekit`."""
    message = f"line {line}: {key}: {reason}" if key else f"line {line}: {reason}"
    errors = [{"pointer": "/mergekit", "detail": message}]
    return SpearError(Code.INVALID_RECIPE, message, pointer="/mergekit", errors=errors, line=line, key=key)


def read(text: str) -> Entry:
    """The document in `text`; raises `SpearError(invalid_recipe)` naming the line, and the key where there is one."""
    if len(text) > MAX_CHARACTERS:
        raise refusal(1, "", f"the YAML has {len(text)} characters; {MAX_CHARACTERS} are allowed")
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise refusal(mark.line + 1 if mark else 1, "", f"not valid YAML: {error.problem}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise refusal(line, "", f"not valid YAML: {error.reason}") from None
    except RecursionError:
        raise refusal(1, "", "the YAML is nested too deeply") from None
    if root is None:
        raise refusal(1, "", "the YAML is empty")
    return _Reader().entry(root, key="", depth=0)


class _Reader:
    """Walks composed nodes. An alias is its anchor's node again, so the walk itself has to end."""

    def __init__(self) -> None:
        self._loader = yaml.SafeLoader("")
        self._seen = 0

    def entry(self, node: yaml.Node, *, key: str, depth: int) -> Entry:
        line = node.start_mark.line + 1
        self._seen += 1
        if self._seen > MAX_NODES:
            raise refusal(line, key, f"more than {MAX_NODES} values, aliases counted each time")
        if depth > MAX_DEPTH:
            raise refusal(line, key, f"nested deeper than {MAX_DEPTH} levels")
        if not isinstance(node, yaml.ScalarNode) and node.tag not in _PLAIN:
            raise refusal(line, key, f"{node.tag[:80]} is not plain data")
        if isinstance(node, yaml.MappingNode):
            return Entry(self._mapping(node, key=key, depth=depth), line, key)
        if isinstance(node, yaml.SequenceNode):
            items = enumerate(node.value)
            return Entry([self.entry(one, key=f"{key}[{i}]", depth=depth + 1) for i, one in items], line, key)
        return Entry(self._scalar(node, line=line, key=key), line, key)

    def _mapping(self, node: yaml.MappingNode, *, key: str, depth: int) -> dict[str, Entry]:
        found: dict[str, Entry] = {}
        for name_node, value_node in node.value:
            line = name_node.start_mark.line + 1
            if name_node.tag == _MERGE:
                raise refusal(line, _join(key, "<<"), "merge keys are not supported: write the values out")
            name = self._scalar(name_node, line=line, key=key) if isinstance(name_node, yaml.ScalarNode) else None
            if not isinstance(name, str):
                raise refusal(line, key, "a key must be text")
            path = _join(key, name[:80])
            if name in found:
                raise refusal(line, path, f"the key stands twice; first in line {found[name].line}")
            value = self.entry(value_node, key=path, depth=depth + 1)
            found[name] = Entry(value.value, line, path)
        return found

    def _scalar(self, node: yaml.Node, *, line: int, key: str) -> Any:
        try:
            value = self._loader.construct_object(node)
        except (yaml.YAMLError, ValueError, ArithmeticError, LookupError, TypeError):
            raise refusal(line, key, f"{str(node.value)[:80]!r} cannot be read as {node.tag[:80]}") from None
        if isinstance(value, date):  # mergekit has no dates; a name may look like one
            value = node.value
        if isinstance(value, str) and not all(sign.isprintable() or sign in "\n\t" for sign in value):
            raise refusal(line, key, "the text has characters that cannot be printed")
        if value is not None and not isinstance(value, str | int | float):
            raise refusal(line, key, f"{node.tag[:80]} is not plain data")
        if isinstance(value, int) and abs(value) >= _LARGEST:
            raise refusal(line, key, "the number is too large")
        return value


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name
