"""What is checked of a study's cells before it is queued: each as the merge that it stands for. Pure but for access."""

from collections.abc import Sequence

from app.errors import SpearError
from app.hub.access import check_write
from app.hub.admission import FLOATS, Admission
from app.hub.client import Hub
from app.hub.inspect import Head
from app.recipes import Study
from app.recipes.coverage import check_chances, check_coverage
from app.recipes.depth import layer_count
from app.recipes.vectors import counted


def check_publications(study: Study, *, publisher: Hub, writes: Sequence[str]) -> None:
    """Grant and access to every target; a refusal names it."""
    for number, one in enumerate(study.publish):
        try:
            check_write(one.target, service=publisher, writes=writes)
        except SpearError as error:
            error.pointer = f"/publish/{number}/target/repo"
            raise


def check_cells(study: Study, heads: Sequence[Head], admission: Admission) -> None:
    """Every method with every set of experts, as `preflight` checks a merge. Raises `SpearError` naming the method."""
    names = [
        tensor.name for tensor in admission.tensors
        if tensor.dtype in FLOATS and all(tensor.name in head.tensors for head in heads)
    ]  # fmt: skip
    methods = [one.name for one in study.methods]
    layers = layer_count(heads[0].config)
    for cell in {(cell.place, cell.unseeded): cell for cell in study.cells()}.values():
        recipe = study.recipe(cell)
        inputs = [heads[0], *(heads[number + 1] for number in cell.experts)]
        try:
            check_coverage(recipe, names)
            check_chances(recipe, names, layers=layers)
            counted(recipe.method, [(head.repo, head.pin.commit) for head in inputs])
        except SpearError as error:
            error.pointer = f"/methods/{methods.index(cell.method)}"
            raise
