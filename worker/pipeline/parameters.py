"""The method's parameters for each tensor: filters matched, gradients over depth interpolated."""

from collections.abc import Iterable
from typing import Any

from app.errors import Code, SpearError
from app.recipes.depth import Depths
from app.recipes.methods.base import Conditional, resolve
from app.recipes.vectors import counted
from worker.methods import Spec
from worker.pipeline.task import Task


class Parameters:
    """Resolves one task's parameters; `names` are all tensors, `layers` the configuration's number of layers."""

    def __init__(self, task: Task, names: Iterable[str], *, layers: int | None = None) -> None:
        method = task.method
        self._shared = {field: getattr(method, field) for field in type(method).model_fields}
        self.sources = counted(method, [(entry.repo, entry.commit) for entry in task.inputs])
        """the inputs' numbers of the experts that go into the merge"""
        self._experts = [
            {
                field: own if (own := getattr(expert, field)) is not None else self._shared[field]
                for field in method.per_expert
            }
            for expert in (task.recipe.experts[number - 1] for number in self.sources)
        ]
        self._keys = tuple(task.inputs[number].commit for number in self.sources)
        self._depths = Depths(names, layers=layers)

    def of(self, tensor: str, shape: tuple[int, ...]) -> Spec:
        """One tensor's spec; raises `SpearError(INVALID_RECIPE)` where no conditional of a list matches it."""
        return Spec(
            name=tensor, shape=shape, parameters=self._plain(self._shared, tensor),
            experts=tuple(self._plain(expert, tensor) for expert in self._experts), keys=self._keys,
            depth=self._depths.of(tensor),
        )

    def _plain(self, fields: dict[str, Any], tensor: str) -> dict[str, Any]:
        return {name.rstrip("_"): self._value(name, value, tensor) for name, value in fields.items()}

    def _value(self, field: str, value: Any, tensor: str) -> Any:
        if not isinstance(value, tuple) or not all(isinstance(part, float | int | Conditional) for part in value):
            return value
        found = resolve(value, tensor=tensor, depth=self._depths.of(tensor))
        if found is None:
            raise SpearError(
                Code.INVALID_RECIPE, f"no filter of {field.rstrip('_')} matches {tensor}: add one for all",
                pointer=f"/method/{field.rstrip('_')}", tensor=tensor,
            )
        return found
