"""The inputs of a mergekit configuration: its `models`, or its `slices` where they are no more than a plain merge."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from app.recipes.mergekit.document import Entry

Settings = dict[str, Entry]
"""Parameters by name."""


@dataclass(frozen=True)
class Model:
    """A reference to a model, as mergekit spells them: `org/name@revision`, and `+org/adapter@revision` behind it."""

    repo: str
    revision: str = "main"
    adapter: tuple[str, str] | None = None
    entry: Entry = field(default=Entry(None, 1, ""), compare=False)

    @property
    def plain(self) -> "Model":
        """The model without its adapter."""
        return Model(self.repo, self.revision, None, self.entry)


@dataclass(frozen=True)
class Source:
    """One input with its own parameters."""

    model: Model
    parameters: Settings


@dataclass(frozen=True)
class Inputs:
    """All inputs. `parameters` are the slices', which go before the configuration's; `layers` is what slices cover."""

    sources: tuple[Source, ...]
    parameters: Settings
    layers: int | None
    entry: Entry


def read_inputs(root: dict[str, Entry], *, base: Model | None) -> Inputs:
    """The inputs; raises `SpearError(invalid_recipe)` with line and key for what is not a plain merge."""
    models, slices = root.get("models"), root.get("slices")
    if models and slices:
        raise slices.refuse("give either models or slices")
    given = models or slices
    if given is None:
        raise root["merge_method"].refuse("there are no models (and no slices) to merge")
    inputs = _from_models(given) if models else _from_slices(given, base=base)
    known: dict[Model, Model] = {}
    for source in inputs.sources:
        if source.model in known:
            raise source.model.entry.refuse(f"the model stands twice; first in line {known[source.model].entry.line}")
        known[source.model] = source.model
    return inputs


def read_model(entry: Entry) -> Model:
    """A model reference: a string, or the mapping that mergekit takes in its place."""
    if isinstance(entry.value, str):
        path, plus, adapter = entry.value.partition("+")
        own = _path(adapter, entry) if plus else None
        return Model(*_path(path, entry), adapter=own, entry=entry)
    parts = fields(entry, known=("model", "lora", "override_architecture"))
    if "override_architecture" in parts:
        raise parts["override_architecture"].refuse("is not supported: the configuration in the repository counts")
    if "model" not in parts:
        raise entry.refuse("names no model")
    lora = parts.get("lora")
    return Model(*_place(parts["model"]), adapter=_place(lora) if lora else None, entry=entry)


def fields(entry: Entry, *, known: Iterable[str]) -> dict[str, Entry]:
    """The mapping's entries that are not null; raises for every key that is not known."""
    if not isinstance(entry.value, dict):
        raise entry.refuse("must be a mapping")
    allowed = tuple(known)
    for name, value in entry.value.items():
        if name not in allowed:
            raise value.refuse(f"is not supported here; known are {', '.join(allowed)}")
    return {name: value for name, value in entry.value.items() if value.value is not None}


def settings(entry: Entry | None) -> Settings:
    """A `parameters` mapping; none at all where it is missing or null."""
    if entry is None or entry.value is None:
        return {}
    if not isinstance(entry.value, dict):
        raise entry.refuse("must be a mapping")
    return dict(entry.value)


def items(entry: Entry) -> list[Entry]:
    """A list with something in it."""
    if not isinstance(entry.value, list) or not entry.value:
        raise entry.refuse("must be a list, and not an empty one")
    return list(entry.value)


def _place(entry: Entry) -> tuple[str, str]:
    """`org/name@revision`, or a mapping of path and revision."""
    if isinstance(entry.value, str):
        return _path(entry.value, entry)
    parts = fields(entry, known=("path", "revision"))
    for name, value in parts.items():
        if not isinstance(value.value, str):
            raise value.refuse(f"a {name} is text")
    if "path" not in parts:
        raise entry.refuse("names no path")
    repo, revision = _path(parts["path"].value, parts["path"])
    return repo, parts["revision"].value if "revision" in parts else revision


def _path(text: str, entry: Entry) -> tuple[str, str]:
    repo, at, revision = text.strip().partition("@")
    if repo.count("/") != 1 or repo.startswith((".", "~", "/")) or "\\" in repo:
        raise entry.refuse(f"{repo[:200]!r} is not a repository on the Hub: write org/name, or org/name@revision")
    if at and (not revision or "@" in revision or "+" in revision):
        raise entry.refuse(f"{text[:200]!r} cannot be read as org/name@revision")
    return repo, revision if at else "main"


def _from_models(given: Entry) -> Inputs:
    return Inputs(tuple(_source(entry) for entry in items(given)), {}, None, given)


def _source(entry: Entry, *, also: tuple[str, ...] = ()) -> Source:
    parts = fields(entry, known=("model", "parameters", *also))
    if "model" not in parts:
        raise entry.refuse("names no model")
    return Source(read_model(parts["model"]), settings(parts.get("parameters")))


def _from_slices(given: Entry, *, base: Model | None) -> Inputs:
    """Slices that lie end to end, all with the same models and parameters, from layer 0 on."""
    found = [_slice(entry, base=base) for entry in items(given)]
    first, reached = found[0], 0
    for one in found:
        _check_same(one, first)
        reached = _check_range(one, reached)
    if len(found) > 1:
        _refuse_gradients(found)
    return Inputs(first.inputs.sources, first.inputs.parameters, reached, given)


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
    sources = tuple(_source(one, also=("layer_range",)) for one in listed)
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


def _refuse_gradients(found: list[_Slice]) -> None:
    """mergekit begins a list over depth anew in each slice; with one slice it goes over all layers, as ours does."""
    for inputs in (one.inputs for one in found):
        for given in (inputs.parameters, *(source.parameters for source in inputs.sources)):
            for entry in given.values():
                for part in gradients(entry):
                    raise part.refuse("a list over depth needs one slice of all layers")


def gradients(entry: Entry) -> Iterator[Entry]:
    """Lists of numbers within a parameter."""
    if isinstance(entry.value, dict) and "value" in entry.value:
        yield from gradients(entry.value["value"])
    elif isinstance(entry.value, list):
        if any(isinstance(part.value, dict) for part in entry.value):
            for part in entry.value:
                yield from gradients(part)
        elif len(entry.value) > 1:
            yield entry


def _plain(inputs: Inputs) -> list[Any]:
    shared = {name: entry.plain for name, entry in inputs.parameters.items()}
    return [shared, *({n: e.plain for n, e in source.parameters.items()} for source in inputs.sources)]
