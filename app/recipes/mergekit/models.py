"""What the inputs of a mergekit configuration are made of: references to models, and their parameters."""

from collections.abc import Iterable
from dataclasses import dataclass, field

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
    """All inputs. `parameters` are the slices', which go before the configuration's; `layers` is what slices cover.

    `stacked` says that there are several slices: then mergekit begins lists over depth anew in each.
    """

    sources: tuple[Source, ...]
    parameters: Settings
    layers: int | None
    entry: Entry
    stacked: bool = False


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


def read_source(entry: Entry, *, also: tuple[str, ...] = ()) -> Source:
    """One input: its model and its parameters; `also` are further keys that it may have."""
    parts = fields(entry, known=("model", "parameters", *also))
    if "model" not in parts:
        raise entry.refuse("names no model")
    return Source(read_model(parts["model"]), settings(parts.get("parameters")))
