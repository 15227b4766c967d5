"""Which inputs have a task vector: an expert that is the base has none, in mergekit neither. Pure."""

from collections.abc import Sequence

from app.errors import Code, SpearError
from app.recipes.methods.base import MethodParameters


def counted(method: MethodParameters, models: Sequence[tuple[str, str]]) -> tuple[int, ...]:
    """The numbers of the experts that go into the merge; `models` are (repository, commit), the base first.

    Raises `SpearError(INVALID_RECIPE)` where too few are left without those that are the base.
    """
    every = tuple(range(1, len(models)))
    if not method.about_base:
        return every
    left = tuple(number for number in every if models[number] != models[0])
    if len(left) < method.min_experts:
        raise SpearError(
            Code.INVALID_RECIPE, f"{method.method_name()} takes {method.min_experts} or more experts beside the base",
            pointer="/experts",
        )  # fmt: skip
    return left
