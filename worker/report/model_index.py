"""The card's `model-index`: what was measured of the result, as the Hub shows it in its tables.

Shape: the model-card metadata of the Hub (`huggingface_hub.ModelCardData`, `model_index_to_eval_results`), where task
type, dataset type and name, metric type and value are required.
"""

from collections.abc import Mapping
from typing import Any

from worker.evaluation.measures import TaskResult
from worker.report.schema import Evaluation, Report

DIGITS = 6
SOURCE = "merge_manifest.json and report.json of this repository"


def model_index(told: Report, *, name: str, pipeline: str) -> list[dict[str, Any]]:
    """One entry per task with a value; empty without an evaluation. `pipeline` is the Hub's task type."""
    tasks = told.evaluation.tasks if told.evaluation else ()
    asked = _by_label(told.recipe.get("evaluation") or {})
    results = [_result(task, asked.get(task.task, {}), pipeline=pipeline) for task in tasks if _known(task)]
    return [{"name": name, "results": results}] if results else []


def measured(evaluation: Evaluation | None) -> bool:
    """Whether there are figures to show."""
    return evaluation is not None and any(_known(task) for task in evaluation.tasks)


def _known(task: TaskResult) -> bool:
    return task.merged.value is not None


def _by_label(evaluation: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The recipe's tasks by the name that results carry."""
    every = (*evaluation.get("general", ()), *evaluation.get("domain", ()))
    return {str(task.get("task") or task.get("name")): task for task in every}


def _result(task: TaskResult, asked: Mapping[str, Any], *, pipeline: str) -> dict[str, Any]:
    value = task.merged.value
    assert value is not None
    return {
        "task": {"type": pipeline, "name": "general ability" if task.role == "general" else "domain"},
        "dataset": {"type": str(asked.get("repo") or task.task), "name": task.task, **_place(asked)},
        "metrics": [{"type": task.metric, "value": round(value, DIGITS), "name": f"{task.metric} ({task.unit})"}],
    }


def _place(asked: Mapping[str, Any]) -> dict[str, str]:
    """Which revision of the data, where the recipe names one."""
    revision = asked.get("revision")
    return {"revision": str(revision)} if revision else {}
