"""merge_manifest.json: what went in, what was decided, what came out. The same job gives the same bytes."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from worker.pipeline.task import Input, Task
from worker.report.report import plain

MANIFEST = "merge_manifest.json"
SCHEMA_VERSION = 1


def build_manifest(
    task: Task,
    *,
    decisions: Sequence[Mapping[str, Any]],
    operations: Mapping[str, int],
    outputs: Mapping[str, tuple[int, str]],
    engine: Mapping[str, str],
) -> dict[str, Any]:
    """The manifest as JSON-safe data.

    `decisions` has one entry per tensor with its `name` and what was done to it; `outputs` has bytes and sha256 of
    every published file by its path, but for the manifest itself. Nothing in it depends on time, on the attempt or on
    whether a spectrum was cached, so a second run of the job ends in the same digest.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "job_id": task.job_id,
        "recipe": task.recipe.model_dump(mode="json"),
        "inputs": [_input(source) for source in task.inputs],
        "engine": dict(engine),
        "operations": plain(operations),
        "decisions": plain(sorted(decisions, key=lambda decision: str(decision["name"]))),
        "outputs": {path: {"bytes": size, "sha256": sha256} for path, (size, sha256) in sorted(outputs.items())},
    }


def canonical(document: Mapping[str, Any]) -> bytes:
    """The one spelling of a JSON document: sorted keys, two spaces, UTF-8, one newline at the end."""
    text = json.dumps(document, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def digest(content: bytes) -> str:
    """The sha256 in hex."""
    return hashlib.sha256(content).hexdigest()


def file_digest(path: Path) -> tuple[int, str]:
    """Size and sha256 of a file."""
    with path.open("rb") as stream:
        return path.stat().st_size, hashlib.file_digest(stream, "sha256").hexdigest()


def _input(source: Input) -> dict[str, Any]:
    pinned = {"repo": source.repo, "commit": source.commit, "license": source.license}
    applied = {"adapter": True} if source.is_adapter else {}
    return {**pinned, **applied, "files": dict(sorted(source.digests.items()))}
