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


def yaml(fields: Mapping[str, Any]) -> str:
    """A flat mapping of strings and lists of strings as block YAML; every value is quoted."""
    lines = []
    for key, value in fields.items():
        if isinstance(value, str):
            lines.append(f"{key}: {_quoted(value)}")
        else:
            lines += [f"{key}:", *(f"- {_quoted(item)}" for item in value)]
    return "\n".join(lines)


def _quoted(value: str) -> str:
    """A double-quoted YAML scalar: JSON's, with what YAML holds for a line break or unprintable escaped too."""
    plain = json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in plain)


def _one_line(value: str) -> str:
    return "".join(c if c.isprintable() else " " for c in value).strip()


def _longest_run(value: str) -> int:
    return max((len(run) for run in re.findall("`+", value)), default=0)
