"""Whether parameters given by filter have a value for every tensor. Pure."""

from collections.abc import Iterable, Iterator

from app.errors import Code, SpearError
from app.recipes.methods.base import Conditional, resolve
from app.recipes.recipe import Recipe


def check_coverage(recipe: Recipe, tensors: Iterable[str]) -> None:
    """Raises `SpearError(INVALID_RECIPE)` naming the parameter and the first of `tensors` that no filter matches."""
    names = tuple(tensors)
    for pointer, value in _conditionals(recipe):
        missed = next((name for name in names if resolve(value, tensor=name, depth=0) is None), None)
        if missed is not None:
            field = pointer.rpartition("/")[2]
            raise SpearError(
                Code.INVALID_RECIPE, f"no filter of {field} matches {missed}: add one for all",
                pointer=pointer, tensor=missed,
            )  # fmt: skip


def _conditionals(recipe: Recipe) -> Iterator[tuple[str, tuple[Conditional, ...]]]:
    """Every list of conditionals, by its pointer into the recipe."""
    fields = type(recipe.method).model_fields
    given = [(f"/method/{field.alias or name}", getattr(recipe.method, name)) for name, field in fields.items()]
    for number, expert in enumerate(recipe.experts):
        given += [(f"/experts/{number}/{name}", getattr(expert, name)) for name in recipe.method.per_expert]
    for pointer, value in given:
        if isinstance(value, tuple) and value and all(isinstance(part, Conditional) for part in value):
            yield pointer, value
