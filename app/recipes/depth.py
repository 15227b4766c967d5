"""The place of a tensor's layer in its model, from names alone. Pure."""

import re
from collections.abc import Iterable

LAYER = re.compile(r"(?:^|\.)(?:layers?|blocks?|h)\.([0-9]+)\.")


class Depths:
    """Depths of a model's tensors; layers count within each stack by itself: those of a vision tower are not the
    language model's. A stack is what stands before `layers.N.` in the names of its tensors."""

    def __init__(self, names: Iterable[str]) -> None:
        self._last: dict[str, int] = {}
        for name in names:
            if place := _place(name):
                stack, layer = place
                self._last[stack] = max(layer, self._last.get(stack, 0))

    def of(self, tensor: str) -> float:
        """The layer's place from 0 to 1; 0 outside of layers, 1 in a stack of one layer (mergekit's rule)."""
        place = _place(tensor)
        if place is None:
            return 0.0
        stack, layer = place
        last = self._last.get(stack, 0)
        return layer / last if last else 1.0


def _place(tensor: str) -> tuple[str, int] | None:
    found = LAYER.search(tensor)
    return (tensor[: found.start()], int(found[1])) if found else None
