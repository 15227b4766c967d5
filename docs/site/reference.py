"""The HTTP reference as a page, from the snapshot of the API's description (OpenAPI 3.1)."""

import re
from typing import Any

Node = dict[str, Any]
HEAD = """# HTTP reference

Every route, parameter and body, made from `openapi.json` when these pages are built; `make check` holds that snapshot
equal to what the service says of itself. How the routes go together, with examples, is told in [HTTP](http.md), and
what the codes of problems mean, [there too](http.md#problems).
"""


def render(description: Node) -> str:
    """The whole page."""
    schemas = description["components"]["schemas"]
    routes = [
        _route(method, path, operation)
        for path, methods in description["paths"].items() for method, operation in methods.items()
    ]  # fmt: skip
    bodies = [_schema(name, schemas[name]) for name in sorted(schemas)]
    return "\n".join([HEAD, "## Routes", "", *routes, "## Bodies", "", *bodies])


def _route(method: str, path: str, operation: Node) -> str:
    lines = [f"### {method.upper()} {path}", "", _text(operation), ""]
    if parameters := operation.get("parameters"):
        lines += ["| parameter | in | type | meaning |", "| --- | --- | --- | --- |"]
        for one in parameters:
            name = f"`{one['name']}`" + (" (required)" if one.get("required") else "")
            lines.append(f"| {name} | {one['in']} | {_type(one['schema'])} | {_cell(one)} |")
        lines.append("")
    if body := operation.get("requestBody"):
        lines += [f"Body: {_content(body)}", ""]
    lines += ["| answer | body |", "| --- | --- |"]
    for status, answer in operation["responses"].items():
        lines.append(f"| {status} {_cell(answer)} | {_content(answer)} |")
    return "\n".join([*lines, ""])


def _schema(name: str, schema: Node) -> str:
    lines = [f"### {name}", "", _text(schema), ""]
    if properties := schema.get("properties"):
        lines += ["| field | type | meaning |", "| --- | --- | --- |"]
        for field, part in properties.items():
            mark = " (required)" if field in schema.get("required", ()) else ""
            lines.append(f"| `{field}`{mark} | {_type(part)} | {_cell(part)} |")
    else:
        lines.append(_type(schema))
    return "\n".join([*lines, ""])


def _text(node: Node) -> str:
    words = node.get("description") or node.get("summary") or ""
    return re.sub(r"`{2,}", "`", " ".join(words.split())).replace("<", "&lt;")


def _cell(node: Node) -> str:
    default = node.get("default", node.get("schema", {}).get("default"))
    text = _text({"description": node.get("description", "")}).replace("|", "\\|")
    return f"{text} (default `{default}`)".strip() if default not in (None, "", [], {}, ()) else text


def _content(node: Node) -> str:
    kinds = [f"{_type(content.get('schema', {}))} (`{kind}`)" for kind, content in node.get("content", {}).items()]
    return ", ".join(kinds) or "none"


def _type(schema: Node) -> str:
    """A type in a few words; one that has a name leads to it."""
    if reference := schema.get("$ref"):
        name = reference.rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})"
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " or ".join(dict.fromkeys(_type(option) for option in schema[key]))
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_type(schema['additionalProperties'])}"
    return str(schema.get("type", "anything"))
