"""The place of a tensor's layer in its model, from names alone. Pure."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

LANGUAGE = frozenset({"", "model", "transformer", "gpt_neox", "language_model.model", "model.language_model"})
"""stacks that `num_hidden_layers` counts"""
LAYER = re.compile(r"(?:^|\.)(?:layers?|blocks?|h)\.([0-9]+)\.")


class Depths:
    """Depths of a model's tensors; layers count within each stack by itself: those of a vision tower are not the
    language model's. A stack is what stands before `layers.N.` in the names of its tensors.

    `layers` is the configuration's number: what stands behind the last of them (a layer that predicts further tokens)
    shifts no other, and counts as the last.
    """

    def __init__(self, names: Iterable[str], *, layers: int | None = None) -> None:
        self._last: dict[str, int] = {}
        for name in names:
            if place := _place(name):
                stack, layer = place
                self._last[stack] = max(layer, self._last.get(stack, 0))
        if layers:
            self._last |= {stack: min(last, layers - 1) for stack, last in self._last.items() if stack in LANGUAGE}

    def of(self, tensor: str) -> float:
        """The layer's place from 0 to 1; 0 outside of layers, 1 in a stack of one layer (mergekit's rule)."""
        place = _place(tensor)
        if place is None:
            return 0.0
        stack, layer = place
        last = self._last.get(stack, 0)
        return min(1.0, layer / last) if last else 1.0


def layer_count(config: Mapping[str, Any]) -> int | None:
    """`num_hidden_layers` of a config.json, or of its language model; None where it has none."""
    text = config.get("text_config")
    for part in (config, text if isinstance(text, Mapping) else {}):
        count = part.get("num_hidden_layers")
        if isinstance(count, int) and count > 0:
            return count
    return None


def _place(tensor: str) -> tuple[str, int] | None:
    found = LAYER.search(tensor)
    return (tensor[: found.start()], int(found[1])) if found else None
