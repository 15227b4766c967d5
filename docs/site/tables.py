"""Tables of the methods' parameters, written into their pages from the schema.

`python docs/site/tables.py` writes them anew; `tests/unit/test_docs_site.py` fails where a page is behind.
"""

import re
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"(<!-- parameters: (\w+) -->\n).*?(<!-- end -->)", flags=re.DOTALL)
MEANINGS = {
    "weight": "weight of an expert, or of all",
    "density": "share of a task vector's entries that is kept",
    "rescale": "scale what is kept so that its L1 norm is that of the whole task vector",
    "normalize": "divide by the sum of the weights",
    "normalize_weights": "divide the weights by their sum",
    "seed": "of the random masks",
    "epsilon": "how far an entry's chance may lie from `density`, by its magnitude's rank",
    "gamma": "share of the largest entries that is dropped",
    "select_topk": "share of the entries that vary, by variance, that is kept",
    "alpha": "0 is the base, 1 the expert",
    "t": "0 is the base, 1 the expert",
    "scale": "factor; none: the expert as it is",
    "max_iter": "most iterations",
    "tol": "angle below which the iteration ends, and norm up to which a tensor has no direction",
    "eps": "below this a length counts as none",
    "snr": "which estimate of the signal-to-noise ratio",
    "snr_reference": "whose spectrum the ratio is taken of",
    "svdr": "which form of the singular value drop ratio",
    "weights": "of `snr`, `relative_change`, `swci` and `svdr` in the score",
    "ranking": "rank within each module type, or over all",
    "unit": "restore single tensors, or whole blocks",
}
"""where the schema has no description of its own"""
OWN = {("nearswap", "t"): "distance at which half is swapped: weight `t / difference`, at most 1"}


def table(name: str, schema: dict[str, Any], *, per_expert: tuple[str, ...] = ()) -> str:
    """Markdown's table of one method's parameters."""
    rows = [
        f"| `{field}` | {_kind(part, schema)} | {_default(field, part, schema)} | {_meaning(name, field, part)}"
        f"{' *' if field in per_expert else ''} |"
        for field, part in schema["properties"].items() if field != "name"
    ]  # fmt: skip
    if not rows:
        return "It has none.\n"
    marked = "\nThose with * may also stand in an expert, for that one.\n" if "* |" in "".join(rows) else ""
    return "| parameter | takes | default | meaning |\n| --- | --- | --- | --- |\n" + "\n".join(rows) + "\n" + marked


def _kind(part: dict[str, Any], schema: dict[str, Any]) -> str:
    options = [_resolved(option, schema) for option in part.get("anyOf", [part])]
    if any(option.get("items", {}).get("$ref", "").endswith("Conditional") for option in options):
        return "[setting](README.md#values-per-tensor-and-per-expert)"
    return " or ".join(filter(None, map(_word, options)))


def _resolved(option: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    reference = option.get("$ref")
    return schema["$defs"][reference.rsplit("/", 1)[1]] if reference else option


def _word(option: dict[str, Any]) -> str:
    if "enum" in option or "const" in option:
        return ", ".join(f"`{value}`" for value in option.get("enum", [option.get("const")]))
    kind = option.get("type", "object")
    bounds = [
        f"{sign} {option[key]:g}"
        for key, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
        if key in option and abs(option[key]) < 1e15
    ]
    names = {"boolean": "true or false", "array": "list", "null": ""}
    return " ".join(filter(None, [names.get(kind, kind), ", ".join(bounds)]))


def _default(field: str, part: dict[str, Any], schema: dict[str, Any]) -> str:
    if field in schema.get("required", ()):
        return "**required**"
    value = part.get("default")
    if value is None:
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`".replace("'", '"')


def _meaning(name: str, field: str, part: dict[str, Any]) -> str:
    words = OWN.get((name, field)) or part.get("description") or MEANINGS.get(field)
    if not words:
        raise ValueError(f"the parameter {field} of {name} needs a description in its field")
    return str(words).replace("|", "\\|")


def rewritten(text: str) -> str:
    """A page with its tables as the schema has them now."""
    from app.recipes.methods import load_all  # noqa: PLC0415  (the site is built without the project)

    methods = load_all()

    def fresh(found: re.Match[str]) -> str:
        cls = methods[found[2]]
        return found[1] + "\n" + table(found[2], cls.model_json_schema(), per_expert=cls.per_expert) + "\n" + found[3]

    return BLOCK.sub(fresh, text)


if __name__ == "__main__":
    sys.path.insert(0, str(DOCS.parent))
    for page in sorted((DOCS / "methods").glob("*.md")):
        page.write_text(rewritten(page.read_text()))
