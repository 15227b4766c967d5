"""Tasks made ready before any weight is touched, so that what cannot be evaluated fails early."""

from collections.abc import Mapping, Sequence
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.errors import Code, SpearError
from app.recipes.catalogue import Leaf, leaves
from app.recipes.evaluation import AnyTask, Evaluation, FileTask, RegisteredTask
from worker.evaluation.bench import AnyBench, Bench, Bundle
from worker.evaluation.catalogue import yaml_of
from worker.evaluation.identity import task_digest
from worker.evaluation.tasks import build
from worker.pipeline.task import Source


@dataclass(frozen=True)
class Ready:
    """One task, as the recipe names it, its bench, and the digest of all that its items are made from."""

    task: AnyTask
    bench: AnyBench
    digest: str

    @property
    def label(self) -> str:
        return self.task.label


@dataclass(frozen=True)
class Benches:
    """All of an evaluation's tasks; `held_out` is reported on, `calibration` may be looked at for a choice."""

    general: tuple[Ready, ...]
    domain: tuple[Ready, ...]
    calibration_general: tuple[Ready, ...] = ()
    calibration_domain: tuple[Ready, ...] = ()

    @property
    def held_out(self) -> tuple[Ready, ...]:
        return (*self.general, *self.domain)

    @property
    def calibration(self) -> tuple[Ready, ...]:
        return (*self.calibration_general, *self.calibration_domain)

    @property
    def generating(self) -> tuple[Ready, ...]:
        """The tasks that models write answers to."""
        return tuple(ready for ready in (*self.held_out, *self.calibration) if ready.bench.generates)


def ready(evaluation: Evaluation, *, sources: Sequence[Source], data: Path) -> Benches:
    """All benches, built; data sets have folders of their own names below `data`.

    Raises `SpearError`: `task_invalid`, `task_empty`, `task_unsupported`.
    """
    calibration = evaluation.calibration

    def each(tasks: tuple[AnyTask, ...]) -> tuple[Ready, ...]:
        return tuple(_ready(task, evaluation=evaluation, sources=sources) for task in tasks)

    with chdir(data):
        return Benches(
            general=each(evaluation.general), domain=each(evaluation.domain),
            calibration_general=each(calibration.general if calibration else ()),
            calibration_domain=each(calibration.domain if calibration else ()),
        )


def _ready(task: AnyTask, *, evaluation: Evaluation, sources: Sequence[Source]) -> Ready:
    settings: Mapping[str, Any] = {"limit": evaluation.limit, "seed": evaluation.seed}
    if isinstance(task, FileTask):
        source = next(source for source in sources if source.holds(task))
        built = build(task, source=source.path / task.path)
        digest = task_digest(kind=task.kind, file=source.digests[task.path])
        return Ready(task=task, bench=Bench.build(task.label, built, **settings), digest=digest)
    found = leaves(task.task)
    benches = tuple(_leaf(leaf, task, **settings) for leaf in found)
    alone = len(found) == 1 and found[0].name == task.label
    digest = task_digest(
        tasks=[(leaf.name, leaf.yaml, _commit(leaf, sources)) for leaf in found], fewshot=task.num_fewshot
    )
    return Ready(task=task, bench=benches[0] if alone else Bundle(task.label, benches), digest=digest)


def _leaf(leaf: Leaf, task: RegisteredTask, *, limit: int | None, seed: int) -> Bench:
    single = task.model_copy(update={"task": leaf.name})
    return Bench.build(leaf.name, build(single, source=yaml_of(leaf.yaml)), limit=limit, seed=seed)


def _commit(leaf: Leaf, sources: Sequence[Source]) -> str:
    """The commit of the data set that the task reads."""
    for source in sources:
        if source.repo_type == "dataset" and source.repo == leaf.dataset:
            return source.commit
    raise SpearError(Code.TASK_UNSUPPORTED, f"{leaf.name}: {leaf.dataset} was not fetched", task=leaf.name)
