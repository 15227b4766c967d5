"""Untrusted text made safe for the two languages of a model card: Markdown and YAML."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_SPECIAL = re.compile(r"([\\`*_\[\]|<>~$&@]|:(?=//)|^[#+-])")


def text(value: str) -> str:
    """A string as one line of Markdown text that can start no markup, link, table cell or HTML."""
    return _SPECIAL.sub(r"\\\1", _one_line(value))


def code(value: str) -> str:
    """A string as a code span, also inside of a table."""
    line = _one_line(value).replace("|", "\\|")
    ticks = "`" * (_longest_run(line) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") or not line else ""
    return f"{ticks}{pad}{line}{pad}{ticks}"


def fenced(content: str, *, language: str = "") -> str:
    """A block of code whose fence is longer than any row of backticks inside."""
    fence = "`" * max(3, _longest_run(content) + 1)
    return f"{fence}{language}\n{content}\n{fence}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """A Markdown table; the cells are Markdown already. `right` are the columns set to the right."""
    rule = ["---:" if column in right else "---" for column in range(len(head))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))


def bullets(lines: Iterable[str]) -> str:
    """Plain lines as a list."""
    return "\n".join(f"- {text(line)}" for line in lines)


def yaml(fields: Mapping[str, Any]) -> str:
    """Mappings, lists, strings, whole numbers, truths and floats as block YAML; every string value is quoted.

    Keys are ours, and plain. Floats are written with a point and without an exponent: YAML 1.1 takes `1e-05` for text.
    """
    return "\n".join(_mapping(fields))


def _mapping(fields: Mapping[str, Any]) -> list[str]:
    lines = []
    for key, value in fields.items():
        if isinstance(value, Mapping):
            lines += [f"{key}:", *(f"  {line}" for line in _mapping(value))]
        elif isinstance(value, list | tuple):
            lines += [f"{key}:", *(line for item in value for line in _item(item))]
        else:
            lines.append(f"{key}: {_scalar(value)}")
    return lines


def _item(value: Any) -> list[str]:
    """One entry of a list; a mapping's first line stands beside the dash."""
    if not isinstance(value, Mapping):
        return [f"- {_scalar(value)}"]
    first, *rest = _mapping(value)
    return [f"- {first}", *(f"  {line}" for line in rest)]


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6f}"
    return str(value) if isinstance(value, int) else _quoted(str(value))


def _quoted(value: str) -> str:
    """A double-quoted YAML scalar: JSON's, with what YAML holds for a line break or unprintable escaped too."""
    plain = json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in plain)


def _one_line(value: str) -> str:
    return "".join(c if c.isprintable() else " " for c in value).strip()


def _longest_run(value: str) -> int:
    return max((len(run) for run in re.findall("`+", value)), default=0)
