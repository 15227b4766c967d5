"""The inputs of a mergekit configuration: its `models`, or its `slices`."""

from app.recipes.mergekit.document import Entry
from app.recipes.mergekit.models import Inputs, Model, items, read_source
from app.recipes.mergekit.slices import from_slices


def read_inputs(root: dict[str, Entry], *, base: Model | None) -> Inputs:
    """The inputs; raises `SpearError(invalid_recipe)` with line and key for what is not a plain merge."""
    models, slices = root.get("models"), root.get("slices")
    if models and slices:
        raise slices.refuse("give either models or slices")
    given = models or slices
    if given is None:
        raise root["merge_method"].refuse("there are no models (and no slices) to merge")
    inputs = _from_models(given) if models else from_slices(given, base=base)
    known: dict[Model, Model] = {}
    for source in inputs.sources:
        if source.model in known:
            raise source.model.entry.refuse(f"the model stands twice; first in line {known[source.model].entry.line}")
        known[source.model] = source.model
    return inputs


def _from_models(given: Entry) -> Inputs:
    return Inputs(tuple(read_source(entry) for entry in items(given)), {}, None, given)
