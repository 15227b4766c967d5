"""The catalogue of what can be evaluated, made from the installed lm-eval and transformers.

`python -m worker.evaluation.catalogue` writes `app/recipes/catalogue.json.gz`; a test holds it to these
libraries. `zcat` shows it, one line for each folder of tasks.
"""

import gzip
import json
import re
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

import lm_eval
from lm_eval.tasks._index import Entry, Kind, TaskIndex
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

import app.recipes
from app.recipes.catalogue import OURS

FILE = Path(app.recipes.__file__).with_name("catalogue.json.gz")
ROOTS: Mapping[str, Path] = {"": Path(lm_eval.__file__).parent / "tasks", OURS: Path(__file__).parent}
"""where task files stand, by the beginning of their paths in the catalogue"""
_HARMLESS = frozenset({"trust_remote_code"})
_HARMLESS_OVERRIDES = frozenset({"task", "task_alias", "group", "group_alias", "metadata", "aggregate_metric_list"})
_KINDS = (None, "loglikelihood", "loglikelihood_rolling", "multiple_choice", "generate_until")
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def yaml_of(path: str) -> Path:
    """Where a task's file is, by its path in the catalogue."""
    root = OURS if path.startswith(OURS) else ""
    return ROOTS[root] / path.removeprefix(root)


def make() -> dict[str, Any]:
    """The catalogue of what is installed."""
    tasks: dict[str, dict[str, list[Any]]] = {}
    groups: dict[str, list[str]] = {}
    refused: dict[str, str] = {}
    datasets: dict[str, int] = {}
    for path, entry in _entries():
        reason = _reason(entry)
        if reason:
            refused[entry.name] = reason
        elif entry.kind is Kind.TASK:
            assert path is not None
            assert entry.cfg is not None
            number = datasets.setdefault(entry.cfg["dataset_path"], len(datasets))
            file = None if path.name == f"{entry.name}.yaml" else path.name
            tasks.setdefault(str(path.parent), {})[entry.name] = [file, number, entry.cfg.get("dataset_name")]
        else:
            groups[entry.name] = sorted(entry.tags) if entry.kind is Kind.TAG else list(_members(entry.cfg))
    return {
        "versions": {name: version(name) for name in ("lm-eval", "transformers")},
        "causal": sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES), "datasets": list(datasets), "tasks": tasks,
        "groups": groups, "refused": refused,
    }


def dump(catalogue: Mapping[str, Any]) -> str:
    """One line for each folder of tasks, each group and each refusal, so that a change can be looked at."""
    parts = []
    for name, part in catalogue.items():
        if isinstance(part, dict):
            lines = ",\n".join(f"{json.dumps(key)}:{_line(value)}" for key, value in sorted(part.items()))
            parts.append(f"{json.dumps(name)}:{{\n{lines}\n}}")
        else:
            parts.append(f"{json.dumps(name)}:{_line(part)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _line(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


def _entries() -> Iterator[tuple[PurePosixPath | None, Entry]]:
    for beginning, root in ROOTS.items():
        for _, entry in sorted(TaskIndex.build([root]).items()):
            path = entry.yaml_path and PurePosixPath(beginning) / entry.yaml_path.relative_to(root).as_posix()
            yield path, entry


def _reason(entry: Entry) -> str | None:
    """Why a task is not offered; none where it is."""
    config: Mapping[str, Any] = entry.cfg or {}
    if entry.kind is Kind.TAG:
        return None
    if entry.kind is Kind.GROUP:
        changed = not all(_plain(member) for member in config.get("task") or [None])
        return "it changes the settings of its tasks; name them" if changed else None
    code = entry.kind is Kind.PY_TASK or bool(config.get("custom_dataset"))
    text = not (config.get("doc_to_image") or config.get("doc_to_audio")) and config.get("output_type") in _KINDS
    reasons = {
        "it loads its data with code of its own": code,
        "it runs code that models write": bool(config.get("unsafe_code")),
        "it asks for more than text": not text,
        "its data set is no repository on the Hub": not _REPO.fullmatch(str(config.get("dataset_path"))),
        "it reads its data set with options of its own": bool(set(config.get("dataset_kwargs") or ()) - _HARMLESS),
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def _plain(member: Any) -> bool:
    if isinstance(member, dict):
        inner = member.get("task")
        children = inner if isinstance(inner, list) else [inner or member.get("group")]
        return not set(member) - _HARMLESS_OVERRIDES and all(_plain(child) for child in children)
    return isinstance(member, str)


def _members(config: Mapping[str, Any] | None) -> Iterator[str]:
    """Names of a group's tasks and groups; those of a group within it that has no file of its own are its own."""
    for member in (config or {}).get("task") or ():
        if isinstance(member, str):
            yield member
        elif isinstance(member.get("task"), list):
            yield from _members(member)
        else:
            yield member.get("task") or member["group"]


if __name__ == "__main__":
    FILE.write_bytes(gzip.compress(dump(make()).encode(), compresslevel=9, mtime=0))
