"""The method's parameters for each tensor: filters matched, gradients over depth interpolated."""

import re
from collections.abc import Iterable
from typing import Any

from app.errors import Code, SpearError
from app.recipes.methods.base import Conditional, resolve
from worker.methods import Spec
from worker.pipeline.task import Task

LAYER = re.compile(r"(?:^|\.)(?:layers?|blocks?|h)\.([0-9]+)\.")


class Parameters:
    """Resolves one task's parameters; `names` are all tensors, from which the number of layers is known."""

    def __init__(self, task: Task, names: Iterable[str]) -> None:
        method = task.recipe.method
        self._shared = {field: getattr(method, field) for field in type(method).model_fields}
        self._experts = [
            {
                field: own if (own := getattr(expert, field)) is not None else self._shared[field]
                for field in method.per_expert
            }
            for expert in task.recipe.experts
        ]
        self._keys = tuple(entry.commit for entry in task.experts)
        self._last = max((layer for name in names if (layer := layer_of(name)) is not None), default=0)

    def of(self, tensor: str, shape: tuple[int, ...]) -> Spec:
        """One tensor's spec; raises `SpearError(INVALID_RECIPE)` where no conditional of a list matches it."""
        return Spec(
            name=tensor, shape=shape, parameters=self._plain(self._shared, tensor),
            experts=tuple(self._plain(expert, tensor) for expert in self._experts), keys=self._keys,
            depth=self.depth(tensor),
        )

    def _plain(self, fields: dict[str, Any], tensor: str) -> dict[str, Any]:
        return {name.rstrip("_"): self._value(name, value, tensor) for name, value in fields.items()}

    def _value(self, field: str, value: Any, tensor: str) -> Any:
        if not isinstance(value, tuple) or not all(isinstance(part, float | int | Conditional) for part in value):
            return value
        found = resolve(value, tensor=tensor, depth=self.depth(tensor))
        if found is None:
            raise SpearError(
                Code.INVALID_RECIPE, f"no filter of {field.rstrip('_')} matches {tensor}: add one for all",
                pointer=f"/method/{field.rstrip('_')}", tensor=tensor,
            )
        return found

    def depth(self, tensor: str) -> float:
        """The layer's place from 0 to 1; 0 outside of layers, 1 in a model of one layer (mergekit's rule)."""
        layer = layer_of(tensor)
        if layer is None:
            return 0.0
        return layer / self._last if self._last else 1.0


def layer_of(tensor: str) -> int | None:
    """The number of the layer that a tensor belongs to."""
    found = LAYER.search(tensor)
    return int(found[1]) if found else None
