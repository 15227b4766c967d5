"""Tasks made ready: their requests are built once, and asked of any number of models."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lm_eval.api.task import ConfigurableTask

from app.errors import Code, SpearError
from worker.evaluation.language_model import LanguageModel
from worker.evaluation.sheets import Sheet

_PREFERRED = ("exact_match", "acc", "pass@1", "f1")
"""Of a task's metrics, those that grade one item between 0 and 1, the first that there is."""


@dataclass(frozen=True)
class Bench:
    """One task, built: `build` tokenises nothing, `LanguageModel` does so the first time it is asked."""

    label: str
    task: ConfigurableTask
    limit: int | None

    @classmethod
    def build(cls, label: str, task: ConfigurableTask, *, limit: int | None, seed: int) -> "Bench":
        """Raises `SpearError(task_empty)` where the task has no items."""
        task.set_fewshot_seed(seed)
        try:
            task.build_all_requests(limit=limit, rank=0, world_size=1)
        except ValueError as error:
            raise SpearError(Code.TASK_EMPTY, f"task {label} has no items", task=label) from error
        return cls(label=label, task=task, limit=limit)

    @property
    def size(self) -> int:
        """Items that are asked."""
        return len({request.doc_id for request in self.task.instances})

    @property
    def generates(self) -> bool:
        """Whether models write the answers."""
        return str(self.task.OUTPUT_TYPE) == "generate_until"

    def ask(self, model: LanguageModel) -> Sheet:
        """The model's answer sheet."""
        requests = self.task.instances
        for request in requests:
            request.resps.clear()
            request.filtered_resps.clear()
        for kind, group in _by(requests, lambda request: request.request_type).items():
            for request, answer in zip(group, getattr(model, kind)(group), strict=True):
                request.resps.append(answer)
        self.task.apply_filters()
        return self._sheet(model)

    def _sheet(self, model: LanguageModel) -> Sheet:
        by_item = _by(self.task.instances, lambda request: request.doc_id)
        chosen = next(iter(self.task.instances[0].filtered_resps))  # the task's first filter is its own choice
        items: list[str] = []
        graded: list[tuple[str, float, float]] = []
        for _, item in self.task.doc_iterator(rank=0, limit=self.limit, world_size=1):
            requests = sorted(by_item[len(items)], key=lambda request: request.idx)
            items.append(_name(item))
            graded.append(self._grade(item, [request.filtered_resps[chosen] for request in requests], model))
        metric = graded[0][0]
        return Sheet(
            task=self.label, kind="loss" if metric == "nll" else "score", metric=metric, items=tuple(items),
            values=tuple(value for _, value, _ in graded), weights=tuple(weight for _, _, weight in graded),
        )

    def _grade(self, item: dict[str, Any], answers: list[Any], model: LanguageModel) -> tuple[str, float, float]:
        """Metric, value and weight of one item."""
        if self.task.OUTPUT_TYPE == "loglikelihood_rolling":
            text = str(self.task.doc_to_target(item))
            return "nll", -float(answers[0]), float(model.token_count(text))
        grades = self.task.process_results(item, answers)
        metric = next((name for name in _PREFERRED if _gradable(grades.get(name))), None)
        if metric is None:
            raise SpearError(
                Code.TASK_UNSUPPORTED, f"task {self.label} grades no item by itself, only {', '.join(sorted(grades))}",
                task=self.label,
            )
        return metric, float(grades[metric]), 1.0


@dataclass(frozen=True)
class Bundle:
    """Several tasks under one name, as a group of lm-eval's: one sheet, of all their items one after the other."""

    label: str
    parts: tuple[Bench, ...]

    @property
    def size(self) -> int:
        """Items of all tasks."""
        return sum(part.size for part in self.parts)

    @property
    def generates(self) -> bool:
        """Whether models write any of the answers."""
        return any(part.generates for part in self.parts)

    def ask(self, model: LanguageModel) -> Sheet:
        """The model's answer sheet. Raises `SpearError(task_unsupported)` where the tasks are of several kinds."""
        sheets = [part.ask(model) for part in self.parts]
        kinds = {(sheet.kind, sheet.metric) for sheet in sheets}
        if len(kinds) > 1:
            metrics = ", ".join(sorted(metric for _, metric in kinds))
            raise SpearError(
                Code.TASK_UNSUPPORTED, f"the tasks of {self.label} are graded differently ({metrics}): name them",
                task=self.label,
            )
        return Sheet(
            task=self.label, kind=sheets[0].kind, metric=sheets[0].metric,
            items=tuple(item for sheet in sheets for item in sheet.items),
            values=tuple(value for sheet in sheets for value in sheet.values),
            weights=tuple(weight for sheet in sheets for weight in sheet.weights),
        )


AnyBench = Bench | Bundle


def ask_all(benches: Iterable[AnyBench], model: LanguageModel) -> Mapping[str, Sheet]:
    """The answer sheets by task."""
    return {bench.label: bench.ask(model) for bench in benches}


def _by(things: Iterable[Any], key: Any) -> dict[Any, list[Any]]:
    groups: dict[Any, list[Any]] = defaultdict(list)
    for thing in things:
        groups[key(thing)].append(thing)
    return groups


def _gradable(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value <= 1


def _name(item: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(item, sort_keys=True, default=str).encode()).hexdigest()[:16]
