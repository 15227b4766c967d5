"""Task files: JSON lines, held against what their kind of task needs. Pure."""

import json
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from app.errors import Code, SpearError
from app.recipes.evaluation import FileTask

_FIELDS: Mapping[str, tuple[str, ...]] = {
    "perplexity": ("text",),
    "multiple_choice": ("question", "choices", "answer"),
    "exact_match": ("question", "answer"),
}


def read_items(task: FileTask, path: Path) -> Iterator[dict[str, Any]]:
    """The items of a task file, each with the fields of its kind.

    Raises `SpearError`: `task_invalid` naming the line and the field, `task_empty`.
    """
    empty = True
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                empty = False
                yield _item(task, line, number=number)
    if empty:
        raise SpearError(Code.TASK_EMPTY, f"{task.repo}: {task.path} has no items", repo=task.repo, file=task.path)


def check_apart(held_out: Mapping[str, Sequence[bytes]], calibration: Mapping[str, Sequence[bytes]]) -> list[str]:
    """Held against each other item by item, by label: whether what is calibrated on is reported on as well.

    Returns words of warning where some items are. Raises `SpearError(task_invalid)` where all items of a task are.
    """
    reported = {item: label for label, items in held_out.items() for item in items}
    chosen = {item: label for label, items in calibration.items() for item in items}
    for sides, other in ((calibration, reported), (held_out, chosen)):
        for label, items in sides.items():
            if items and other.keys() >= set(items):
                one, two = (label, other[items[0]]) if sides is calibration else (other[items[0]], label)
                message = f"calibration task {one} and task {two}, which is to be reported on, have the same items"
                raise SpearError(Code.TASK_INVALID, message, pointer="/evaluation/calibration", task=one)
    shared = {label: len(set(items) & reported.keys()) for label, items in calibration.items()}
    return [
        f"{count} items of calibration task {label} are also reported on: keep them apart"
        for label, count in shared.items() if count
    ]  # fmt: skip


def item_digest(item: Mapping[str, Any]) -> bytes:
    """Of an item's content: the same for the same fields in another order."""
    return sha256(json.dumps(item, sort_keys=True).encode()).digest()


def _item(task: FileTask, line: bytes, *, number: int) -> dict[str, Any]:
    where: dict[str, Any] = {"repo": task.repo, "file": task.path, "line": number}
    try:
        item = json.loads(line)
    except (ValueError, RecursionError):  # no JSON, no UTF-8, or brackets without end
        item = None
    if not isinstance(item, dict):
        raise SpearError(Code.TASK_INVALID, f"{task.repo}: {task.path}, line {number}: not a JSON object", **where)
    for field in _FIELDS[task.kind]:
        if problem := _problem(item, field, kind=task.kind):
            message = f"{task.repo}: {task.path}, line {number}: {field} {problem}"
            raise SpearError(Code.TASK_INVALID, message, field=field, **where)
    return {field: item[field] for field in _FIELDS[task.kind]}


def _problem(item: Mapping[str, Any], field: str, *, kind: str) -> str | None:
    """What is wrong with a field, if anything is."""
    value: Any = item.get(field)
    if field not in item:
        return "is missing"
    if field == "choices":
        texts = isinstance(value, list) and len(value) > 1 and all(isinstance(one, str) and one for one in value)
        return None if texts else "must be a list of two or more texts"
    if field == "answer" and kind == "multiple_choice":
        count = len(item["choices"])  # judged before: the fields are looked at in order
        is_index = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < count
        return None if is_index else f"must be the index of a choice, 0 to {count - 1}"
    return None if isinstance(value, str) and value.strip() else "must be a text that is not empty"
