"""What kind of module a tensor belongs to, and in which layer, by its name."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

PROJECTIONS = ("q", "k", "v", "o", "gate", "up", "down")
GROUPS = (*PROJECTIONS, "embedding", "head")
EMBEDDING, HEAD, NORM, BIAS, OTHER = "embedding", "head", "norm", "bias", "other"

_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|block)\.(\d+)\.")
_PROJECTION = re.compile(r"(?:^|\.)(q|k|v|o|gate|up|down)_proj\.weight$")
_ENDINGS = (
    (re.compile(r"(?:^|\.)(?:embed_tokens|word_embeddings|wte|embed_in)\.weight$"), EMBEDDING),
    (re.compile(r"(?:^|\.)(?:lm_head|embed_out|output)\.weight$"), HEAD),
    (re.compile(r"(?:^|[._])(?:norm|layernorm|ln_\w+|ln)(?:\.weight|\.bias)?$"), NORM),
    (re.compile(r"\.bias$"), BIAS),
)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a tensor stands in its model; `layer` is None outside the blocks."""

    module_type: str
    layer: int | None


def place(name: str) -> Place:
    """Module type (`q k v o gate up down embedding head norm bias other`) and layer of a tensor named `name`."""
    layer = _LAYER.search(name)
    return Place(module_type=_module_type(name), layer=int(layer.group(1)) if layer else None)


def wanted(name: str, *, ndim: int, modules: Iterable[str]) -> bool:
    """Whether a tensor is to be scored.

    An entry of `modules` is a module type or a shell-style pattern (`fnmatch`, case-sensitive: `*`, `?`, `[...]`) that
    matches the whole tensor name. Only 2-D tensors are scored: a vector has a single singular value.
    """
    return ndim == 2 and any(entry == _module_type(name) or fnmatchcase(name, entry) for entry in modules)


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a shell-style pattern among `patterns` matches the whole name."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _module_type(name: str) -> str:
    projection = _PROJECTION.search(name)
    if projection:
        return projection.group(1)
    return next((kind for pattern, kind in _ENDINGS if pattern.search(name)), OTHER)
