"""lm-eval's tasks from what a recipe names: registered ones over a fetched data set, and files of JSON lines."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager

from app.errors import Code, SpearError
from app.recipes.evaluation import AnyTask, FileTask, RegisteredTask
from worker.checkpoints.disk import FULL
from worker.evaluation.files import read_items

_FORMS: Mapping[str, dict[str, Any]] = {
    "perplexity": {
        "output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "bits_per_byte", "aggregation": "bits_per_byte", "higher_is_better": False}],
    },
    "multiple_choice": {
        "output_type": "multiple_choice", "doc_to_text": "{{question}}", "doc_to_choice": "choices",
        "doc_to_target": "answer", "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    },
    "exact_match": {
        "output_type": "generate_until", "doc_to_text": "{{question}}", "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["\n"], "do_sample": False, "max_gen_toks": 64},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
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
    lines = list(read_items(task, path))
    return ConfigurableTask(config={
        "task": task.label, "test_split": "test", "custom_dataset": lambda **_: _dataset(lines), **_FORMS[task.kind],
    })  # fmt: skip


def _dataset(lines: list[dict[str, Any]]) -> Mapping[str, Any]:
    from datasets import Dataset  # noqa: PLC0415  (takes a second, which registered tasks pay anyway)

    return {"test": Dataset.from_list(lines)}


def _registered(task: RegisteredTask, yaml: Path) -> ConfigurableTask:
    if not yaml.is_file():
        message = f"the worker's lm-eval has no task {task.task}"
        raise SpearError(Code.TASK_UNSUPPORTED, message, task=task.task)
    try:
        built = next(iter(TaskManager(include_defaults=False).load(str(yaml))["tasks"].values()))
    except MemoryError:
        raise
    except Exception as error:  # whatever lm-eval, its task's code or the data set's reader raise
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        words = str(error).strip().replace(f"{Path.cwd()}/", "").replace(f"{yaml.parent}/", "")[:300]
        said = f"{type(error).__name__}: {words}"
        raise SpearError(Code.TASK_UNSUPPORTED, f"task {task.task} cannot be built: {said}", task=task.task) from error
    if not isinstance(built, ConfigurableTask) or getattr(built, "UNSAFE_CODE", False):
        message = f"task {task.task} runs code of its own and is not offered"
        raise SpearError(Code.TASK_UNSUPPORTED, message, task=task.task)
    if task.num_fewshot is not None:
        built.set_config(key="num_fewshot", value=task.num_fewshot)
    return built
