"""What a reproduction found: equal, or what differs."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from app.hub.manifest import File, Manifest

What = Literal["input", "published", "engine", "decision", "output", "tensor"]
EVIDENCE = ("README.md", "report.json", "figures/")
"""published files that tell of the job itself, its id and its time; they are no result of the arithmetic"""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One thing that is not as the manifest says; `expected` and `found` are digests, values or None for absence."""

    what: What
    name: str
    repo: str | None = None
    expected: str | None = None
    found: str | None = None
    note: str = ""

    def __str__(self) -> str:
        place = f"{self.name} of {self.repo}" if self.repo else self.name
        if self.note:
            return f"{self.what} {place}: {self.note}"
        if self.found is None:
            return f"{self.what} {place} is missing"
        if self.expected is None:
            return f"{self.what} {place} is not in the manifest"
        return f"{self.what} {place} is {self.found}, the manifest says {self.expected}"


@dataclass(kw_only=True)
class Outcome:
    """All that was found. `files` are the published files that were compared, by path, with whether they are equal."""

    repo: str
    commit: str
    job_id: str
    way: Literal["here", "service"]
    ran: bool = False
    files: dict[str, bool] = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)
    engine: dict[str, tuple[str | None, str | None]] = field(default_factory=dict)
    """what computed it then and now, where that differs: no difference by itself, but a reason for one"""
    again: str | None = None
    """the job that ran it again, where the service did"""

    @property
    def equal(self) -> bool:
        """Whether it was run, and everything came out again."""
        return self.ran and not self.differences and all(self.files.values()) and bool(self.files)

    def document(self) -> dict[str, Any]:
        """For programs."""
        found = asdict(self)
        return {"equal": self.equal, **found}


def results(manifest: Manifest) -> dict[str, File]:
    """The published files that a rerun has to give again: weights, index, config, tokenizer."""
    return {path: file for path, file in manifest.outputs.items() if not path.startswith(EVIDENCE)}


def compare_files(expected: Mapping[str, File], found: Mapping[str, str]) -> tuple[dict[str, bool], list[Difference]]:
    """Every expected file against the sha256 that was found under its path."""
    files = {path: found.get(path) == file.sha256 for path, file in expected.items()}
    differences = [
        Difference(
            what="output", name=path, expected=f"sha256:{expected[path].sha256}",
            found=f"sha256:{found[path]}" if path in found else None,
        )
        for path, equal in files.items() if not equal
    ]  # fmt: skip
    extra = sorted(path for path in found if path not in expected and path.endswith(".safetensors"))
    return files, differences + [Difference(what="output", name=path, found=f"sha256:{found[path]}") for path in extra]


def compare_decisions(then: Manifest, now: Manifest) -> list[Difference]:
    """Tensors to which something else was done: another operation, or another t."""
    ours = {each.name: each for each in now.decisions}
    said = {each.name: each for each in then.decisions}
    names = [name for name in sorted(said.keys() | ours.keys()) if said.get(name) != ours.get(name)]
    return [
        Difference(what="decision", name=name, expected=_words(said.get(name)), found=_words(ours.get(name)))
        for name in names
    ]


def compare_engines(then: Mapping[str, str], now: Mapping[str, str]) -> dict[str, tuple[str | None, str | None]]:
    """What computed it, where that changed."""
    names: Iterable[str] = sorted(then.keys() | now.keys())
    return {name: (then.get(name), now.get(name)) for name in names if then.get(name) != now.get(name)}


def weights(paths: Iterable[str], folder: Path | None = None) -> list[str]:
    """The weight files among them; those that lie in `folder`, where one is given."""
    chosen = sorted(path for path in paths if path.endswith(".safetensors"))
    return [path for path in chosen if folder is None or (folder / path).is_file()]


def _words(decision: Any) -> str | None:
    if decision is None:
        return None
    return f"{decision.operation}, t = {decision.t:g}" if decision.t is not None else str(decision.operation)
