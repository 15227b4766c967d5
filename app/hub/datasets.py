"""Which files of a data set's repository a task reads: plain data, as the card's configurations name it. Pure.

Source of the format: https://huggingface.co/docs/hub/datasets-manual-configuration.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from app.errors import Code, SpearError
from app.hub.pins import Pin, RemoteFile

CARD = "README.md"
PLAIN = (".parquet", ".jsonl", ".json", ".ndjson", ".csv", ".tsv", ".arrow", ".txt")
PACKED = ("", ".gz", ".zst", ".bz2", ".xz")
_ENDINGS = tuple(plain + packed for plain in PLAIN for packed in PACKED)
_GLOB = re.compile(r"\*\*/|\*\*|\*|\?|\[[^\]]*\]|[^*?\[]+|\[")
_NO_DATA = frozenset({"dataset_infos.json", "dataset_dict.json", "state.json", "LICENSE.txt", "requirements.txt"})


def data_files(pin: Pin, *, card: bytes, config: str | None, task: str) -> tuple[RemoteFile, ...]:
    """The data of the configuration, with the card that `datasets` reads its name from.

    Raises `SpearError(task_unsupported)` where there is no such configuration, or no plain data, as in repositories
    that make it with a script.
    """
    plain = [file for file in pin.files if file.path.endswith(_ENDINGS) and file.path.split("/")[-1] not in _NO_DATA]
    if not plain:
        message = (
            f"{task}: {pin.repo} has no plain data files (parquet, JSON, CSV), and a data set's own code is never run"
        )
        raise SpearError(Code.TASK_UNSUPPORTED, message, task=task, repo=pin.repo)
    configs = _configs(card)
    chosen = [one for one in configs if config in (None, one.get("config_name", "default"))]
    if not chosen and (configs or config not in (None, "default")):
        names = ", ".join(str(one.get("config_name")) for one in configs[:10]) or "none"
        message = f"{task}: {pin.repo} has no configuration {config}; its card names: {names}"
        raise SpearError(Code.TASK_UNSUPPORTED, message, task=task, repo=pin.repo, config=config)
    _refuse_elsewhere(chosen, pin=pin, task=task)
    patterns = [pattern for one in chosen for pattern in _patterns(one)]
    files = [file for file in plain if not patterns or any(pattern.fullmatch(file.path) for pattern in patterns)]
    readme = pin.file(CARD)
    return (*files, readme) if readme else tuple(files)


def _refuse_elsewhere(configs: Sequence[Mapping[str, Any]], *, pin: Pin, task: str) -> None:
    """What the card names is read by its own name: it must lie in the repository."""
    for config in configs:
        for path in (*_paths(config.get("data_files")), str(config.get("data_dir") or "")):
            if path.startswith(("/", "~")) or "://" in path or "::" in path or ".." in path.split("/"):
                message = f"{task}: the card of {pin.repo} names data outside of it: {path[:200]!r}"
                raise SpearError(Code.TASK_UNSUPPORTED, message, task=task, repo=pin.repo)


def _configs(card: bytes) -> list[dict[str, Any]]:
    """What the card's head says of configurations; nothing where it cannot be read."""
    head = re.match(r"\s*---\s*\n(.*?)\n---", card.decode(errors="replace"), re.DOTALL)
    try:
        said = yaml.safe_load(head[1]) if head else None
    except (yaml.YAMLError, ValueError, RecursionError):
        return []
    configs = said.get("configs") if isinstance(said, dict) else None
    return [one for one in configs if isinstance(one, dict)] if isinstance(configs, list) else []


def _patterns(config: Mapping[str, Any]) -> Iterator[re.Pattern[str]]:
    folder = str(config.get("data_dir") or "").strip("./")
    beginning = f"{folder}/" if folder else ""
    named = list(_paths(config.get("data_files")))
    for path in named or ([f"{folder}/**"] if folder else []):
        whole = path if not beginning or path.startswith(beginning) or not named else beginning + path
        yield _regex(whole.removeprefix("./"))


def _paths(files: Any) -> Iterator[str]:
    """Whatever forms `data_files` has: a pattern, a list, patterns by split, or a list of splits."""
    if isinstance(files, str):
        yield files
    elif isinstance(files, Sequence):
        for one in files:
            yield from _paths(one.get("path") if isinstance(one, Mapping) else one)
    elif isinstance(files, Mapping):
        for one in files.values():
            yield from _paths(one)


def _regex(pattern: str) -> re.Pattern[str]:
    """Of a shell pattern in which `**` goes over folders."""
    meanings = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = (
        meanings.get(part) or (part if part.startswith("[") and len(part) > 2 else re.escape(part))
        for part in _GLOB.findall(pattern[:1000])
    )
    try:
        return re.compile("".join(parts))
    except re.error:
        return re.compile(re.escape(pattern))
