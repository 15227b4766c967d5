"""Whether parameters given by filter or over depth have a value for every tensor, one that its method can use. Pure."""

from collections.abc import Iterable, Iterator

from app.errors import Code, SpearError
from app.recipes.depth import Depths
from app.recipes.methods.base import Conditional, Setting, resolve
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


def check_chances(recipe: Recipe, tensors: Iterable[str], *, layers: int | None = None) -> None:
    """DELLA's probabilities, density - epsilon to density + epsilon, must lie between 0 and 1, exclusive.

    `layers` is the configuration's number of them. Raises `SpearError(INVALID_RECIPE)` naming the parameter and the
    first of `tensors` for which they do not; all settings are known to have a value for each.
    """
    if "epsilon" not in recipe.method.per_expert:
        return
    names = tuple(tensors)
    depths = Depths(names, layers=layers)
    for number in range(len(recipe.experts)):
        (density, place), (epsilon, other) = (_setting(recipe, number, field) for field in ("density", "epsilon"))
        for name in names:
            low, wide = (resolve(value, tensor=name, depth=depths.of(name)) or 0.0 for value in (density, epsilon))
            if 0 < low < 1 and not 0 < low - wide <= low + wide < 1:
                raise SpearError(
                    Code.INVALID_RECIPE, f"density {low:g} ± epsilon {wide:g} must lie between 0 and 1, exclusive",
                    pointer=place if place.startswith("/experts") else other, tensor=name,
                )  # fmt: skip


def _setting(recipe: Recipe, number: int, field: str) -> tuple[Setting, str]:
    """What counts for an expert, and its pointer into the recipe."""
    own = getattr(recipe.experts[number], field)
    return (getattr(recipe.method, field), f"/method/{field}") if own is None else (own, f"/experts/{number}/{field}")


def _conditionals(recipe: Recipe) -> Iterator[tuple[str, tuple[Conditional, ...]]]:
    """Every list of conditionals, by its pointer into the recipe."""
    fields = type(recipe.method).model_fields
    given = [(f"/method/{field.alias or name}", getattr(recipe.method, name)) for name, field in fields.items()]
    for number, expert in enumerate(recipe.experts):
        given += [(f"/experts/{number}/{name}", getattr(expert, name)) for name in recipe.method.per_expert]
    for pointer, value in given:
        if isinstance(value, tuple) and value and all(isinstance(part, Conditional) for part in value):
            yield pointer, value
