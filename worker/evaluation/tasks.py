"""lm-eval's tasks from what a recipe names: registered ones over a fetched data set, and files of JSON lines."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager

from app.errors import Code, SpearError
from app.recipes.evaluation import AnyTask, FileTask, RegisteredTask

_FIELDS: Mapping[str, tuple[str, ...]] = {
    "perplexity": ("text",),
    "multiple_choice": ("question", "choices", "answer"),
    "exact_match": ("question", "answer"),
}
_FORMS: Mapping[str, dict[str, Any]] = {
    "perplexity": {
        "output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "bits_per_byte"}],
    },
    "multiple_choice": {
        "output_type": "multiple_choice", "doc_to_text": "{{question}}", "doc_to_choice": "choices",
        "doc_to_target": "answer", "metric_list": [{"metric": "acc"}],
    },
    "exact_match": {
        "output_type": "generate_until", "doc_to_text": "{{question}}", "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["\n"], "do_sample": False, "max_gen_toks": 64},
        "metric_list": [{"metric": "exact_match"}],
    },
}  # fmt: skip


def build(task: AnyTask, *, source: Path) -> ConfigurableTask:
    """The task in lm-eval's form.

    A registered task reads its data set from a folder of the data set's own name below the working directory.

    Args:
        task: what the recipe says.
        source: the JSON lines, or lm-eval's YAML file of a registered task.

    Raises:
        SpearError: `task_invalid` naming the line and the field, `task_empty`, `task_unsupported`.
    """
    return _from_file(task, source) if isinstance(task, FileTask) else _registered(task, source)


def _from_file(task: FileTask, path: Path) -> ConfigurableTask:
    lines = list(_checked(task, path))
    return ConfigurableTask(config={
        "task": task.label, "test_split": "test", "custom_dataset": lambda **_: _dataset(lines), **_FORMS[task.kind],
    })  # fmt: skip


def _dataset(lines: list[dict[str, Any]]) -> Mapping[str, Any]:
    from datasets import Dataset  # noqa: PLC0415  (takes a second, which registered tasks pay anyway)

    return {"test": Dataset.from_list(lines)}


def _checked(task: FileTask, path: Path) -> Iterator[dict[str, Any]]:
    empty = True
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                empty = False
                yield _item(task, line, number=number)
    if empty:
        raise SpearError(Code.TASK_EMPTY, f"{task.repo}: {task.path} has no items", repo=task.repo, file=task.path)


def _item(task: FileTask, line: str, *, number: int) -> dict[str, Any]:
    where: dict[str, Any] = {"repo": task.repo, "file": task.path, "line": number}
    try:
        item = json.loads(line)
    except ValueError:
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


def _registered(task: RegisteredTask, yaml: Path) -> ConfigurableTask:
    built = next(iter(TaskManager(include_defaults=False).load(str(yaml))["tasks"].values()))
    if not isinstance(built, ConfigurableTask) or getattr(built, "UNSAFE_CODE", False):
        message = f"task {task.task} runs code of its own and is not offered"
        raise SpearError(Code.TASK_UNSUPPORTED, message, task=task.task)
    if task.num_fewshot is not None:
        built.set_config(key="num_fewshot", value=task.num_fewshot)
    return built
