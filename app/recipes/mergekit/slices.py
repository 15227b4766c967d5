"""`slices` that are no more than a plain merge: every layer in its place, the same models for all."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from app.recipes.mergekit.document import Entry
from app.recipes.mergekit.models import Inputs, Model, Settings, fields, items, read_model, read_source, settings


def from_slices(given: Entry, *, base: Model | None) -> Inputs:
    """Slices that lie end to end, all with the same models and parameters, from layer 0 on."""
    found = [_slice(entry, base=base) for entry in items(given)]
    first, reached = found[0], 0
    for one in found:
        _check_same(one, first)
        reached = _check_range(one, reached)
    return Inputs(first.inputs.sources, first.inputs.parameters, reached, given, stacked=len(found) > 1)


@dataclass(frozen=True)
class _Slice:
    inputs: Inputs
    ranges: tuple[tuple[int, int], ...]
    places: tuple[Entry, ...]


def _slice(entry: Entry, *, base: Model | None) -> _Slice:
    parts = fields(entry, known=("sources", "parameters", "base_model", "residual_weight"))
    if "residual_weight" in parts:
        raise parts["residual_weight"].refuse("is not supported")
    if "base_model" in parts and read_model(parts["base_model"]) != base:
        raise parts["base_model"].refuse("a slice cannot have a base_model of its own")
    if "sources" not in parts:
        raise entry.refuse("has no sources")
    listed = items(parts["sources"])
    sources = tuple(read_source(one, also=("layer_range",)) for one in listed)
    places = tuple(_range_entry(one) for one in listed)
    inputs = Inputs(sources, settings(parts.get("parameters")), None, entry)
    return _Slice(inputs, tuple(_range(place) for place in places), places)


def _range_entry(source: Entry) -> Entry:
    found = source.value.get("layer_range")
    if not isinstance(found, Entry) or found.value is None:
        raise source.refuse("has no layer_range")
    return found


def _range(entry: Entry) -> tuple[int, int]:
    bounds = entry.plain
    if not isinstance(bounds, list) or len(bounds) != 2 or not all(type(bound) is int for bound in bounds):
        raise entry.refuse("must be two whole numbers: the first layer, and the one behind the last")
    if not 0 <= bounds[0] < bounds[1]:
        raise entry.refuse(f"{bounds} holds no layer")
    return bounds[0], bounds[1]


def _check_range(one: _Slice, reached: int) -> int:
    """Every source's range goes on where the slice before ended; the new end."""
    start, stop = one.ranges[0]
    if start != reached:
        fault = f"leaves out layers {reached} to {start - 1}" if start > reached else f"repeats layer {start}"
        raise one.places[0].refuse(f"{fault}: only merges that keep every layer in its place are supported")
    for (first, last), place in zip(one.ranges, one.places, strict=True):
        if (first, last) != (start, stop):
            raise place.refuse(f"differs from the first source's [{start}, {stop}]: layers cannot change their places")
    return stop


def _check_same(one: _Slice, first: _Slice) -> None:
    """Every slice takes the same models with the same parameters: there is one recipe for all layers."""
    if [source.model for source in one.inputs.sources] != [source.model for source in first.inputs.sources]:
        raise one.inputs.entry.refuse("has other models, or another order of them, than the first slice")
    if _plain(one.inputs) != _plain(first.inputs):
        raise one.inputs.entry.refuse("has other parameters than the first slice: give them by filter, for all layers")


def refuse_gradients(parameters: Settings) -> None:
    """mergekit begins a list over depth anew in each slice; with one slice it goes over all layers, as ours does."""
    for entry in parameters.values():
        for part in _gradients(entry):
            raise part.refuse("a list over depth needs one slice of all layers")


def _gradients(entry: Entry) -> Iterator[Entry]:
    """Lists of numbers within a parameter."""
    if isinstance(entry.value, dict) and "value" in entry.value:
        yield from _gradients(entry.value["value"])
    elif isinstance(entry.value, list):
        if any(isinstance(part.value, dict) for part in entry.value):
            for part in entry.value:
                yield from _gradients(part)
        elif len(entry.value) > 1:
            yield entry


def _plain(inputs: Inputs) -> list[Any]:
    shared = {name: entry.plain for name, entry in inputs.parameters.items()}
    return [shared, *({n: e.plain for n, e in source.parameters.items()} for source in inputs.sources)]
