"""merge_manifest.json of a published merge, as its readers need it. `worker.report.manifest` writes it."""

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from app.errors import Code, SpearError
from app.hub.client import Hub
from app.hub.commits import MANIFEST
from app.hub.pins import Pin, pin
from app.hub.strictjson import MAX_VALUES, check_values

_MOST_BYTES = 64_000_000
"""of a manifest of more tensors than a model may have"""


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class Source(_Part):
    """One input at its commit, with the digests of the files that were read."""

    repo: str
    commit: str
    license: str | None = None
    adapter: bool = False
    files: dict[str, str]


class Decision(_Part):
    """What was done to one tensor; `t` where the tensor was chosen to be restored."""

    name: str
    operation: str
    t: float | None = None


class File(_Part):
    """One published file."""

    bytes: int
    sha256: str


class Manifest(_Part):
    """What went in, what was decided, what came out."""

    schema_version: Literal[1]
    job_id: str
    recipe: dict[str, Any]
    inputs: tuple[Source, ...]
    engine: dict[str, str]
    decisions: tuple[Decision, ...]
    outputs: dict[str, File]

    @property
    def replay(self) -> dict[str, float] | None:
        """The t of every tensor that was chosen, by its name: what a rerun has to do, with nothing left to decide.

        None for methods that choose nothing: they are arithmetic alone.
        """
        if self.recipe.get("method", {}).get("name") != "spear":
            return None
        return {each.name: each.t for each in self.decisions if each.t is not None}


@dataclass(frozen=True)
class Published:
    """A published merge: its repository at one commit, and its manifest."""

    pin: Pin
    manifest: Manifest


def read_published(hub: Hub, repo: str, revision: str) -> Published:
    """The merge that stands at this revision.

    Raises `SpearError(invalid_recipe)` where it is none of ours, and whatever the Hub answers.
    """
    pinned = pin(hub, repo, revision)
    file = pinned.file(MANIFEST)
    if file is None:
        raise _unfit(pinned, "has no merge_manifest.json: it was not published by this service")
    if file.size > _MOST_BYTES:
        raise _unfit(pinned, f"has a merge_manifest.json of {file.size} bytes")
    raw = hub.read(repo, pinned.commit, MANIFEST, size=file.size) if file.size else b""
    check_values(raw, file=MANIFEST, limit=MAX_VALUES)
    try:
        return Published(pinned, Manifest.model_validate_json(raw))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = "/".join(str(part) for part in first["loc"]) or "the document"
        raise _unfit(pinned, f"has a merge_manifest.json that cannot be read: {place}: {first['msg']}") from None


def _unfit(pinned: Pin, what: str) -> SpearError:
    return SpearError(
        Code.INVALID_RECIPE, f"{pinned.repo}@{pinned.commit[:12]} {what}", repo=pinned.repo, commit=pinned.commit,
        file=MANIFEST,
    )  # fmt: skip
