"""What to measure: general and domain tasks, those to calibrate on, and the gate before publishing."""

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, StringConstraints, Tag, model_validator

from app.recipes.parts import Part, RepoId, Revision
from app.recipes.scalars import Flag, Number, Whole

TaskName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
_PART = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
FilePath = Annotated[str, StringConstraints(pattern=rf"^{_PART}(/{_PART})*\.jsonl$", max_length=255)]
Kind = Literal["perplexity", "multiple_choice", "exact_match"]


class NamedTask(Part):
    """What every task may say of itself."""

    ability: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]*$", max_length=40)] | None = Field(
        None, description="the ability that the task stands for: prose, code, math, ...; means are taken by ability"
    )
    weight: Number = Field(1.0, gt=0, le=1000, description="the task's weight in the means")


class RegisteredTask(NamedTask):
    """A task that lm-eval knows by this name."""

    task: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$", max_length=200)]
    num_fewshot: Whole | None = Field(None, ge=0, le=64)

    @property
    def label(self) -> str:
        """The name that results carry."""
        return self.task


class FileTask(NamedTask):
    """A task of our own: JSON lines in a repository on the Hub.

    `perplexity` takes lines with `text`; `multiple_choice` takes `question`, `choices` and `answer` (its index);
    `exact_match` takes `question` and `answer`, the text that greedy generation has to begin with.
    """

    name: TaskName
    kind: Kind
    repo: RepoId
    repo_type: Literal["dataset", "model"] | None = Field(
        None, description="without it, the repository is looked for among data sets, then among models"
    )
    revision: Revision = "main"
    path: FilePath

    @property
    def label(self) -> str:
        """The name that results carry."""
        return self.name


TASK_FORMS = ("registered task", "file task")
"""Tags of the forms that a task may have; they stand in pydantic's locations, never in pointers."""


def _form(value: Any) -> str:
    named = "task" in value if isinstance(value, dict) else isinstance(value, RegisteredTask)
    return TASK_FORMS[0] if named else TASK_FORMS[1]


AnyTask = Annotated[
    Annotated[RegisteredTask, Tag(TASK_FORMS[0])] | Annotated[FileTask, Tag(TASK_FORMS[1])], Discriminator(_form)
]
Tasks = Annotated[tuple[AnyTask, ...], Field(max_length=64)]


class TaskSet(Part):
    """Tasks of the general abilities to keep, and of the domain that was trained for."""

    general: Tasks = ()
    domain: Tasks = ()

    @property
    def tasks(self) -> tuple[AnyTask, ...]:
        return (*self.general, *self.domain)

    @model_validator(mode="after")
    def _told_apart(self) -> Self:
        labels = [task.label for task in self.tasks]
        if twice := sorted({label for label in labels if labels.count(label) > 1}):
            raise ValueError(f"two tasks are named {twice[0]}")
        if not labels:
            raise ValueError("names no task")
        return self


class Gate(Part):
    """What a result must reach to be published. Judged by the lower ends of the intervals."""

    min_retention: Number | None = Field(None, ge=0, le=10)
    min_gain_kept: Number | None = Field(None, ge=-10, le=10)
    on_fail: Literal["block", "warn"] = "block"


class Evaluation(TaskSet):
    """What is measured of base, experts and result; `calibration` is what the search may look at."""

    calibration: TaskSet | None = None
    limit: Whole | None = Field(None, ge=1, le=100_000, description="at most so many items of each task")
    seed: Whole = Field(0, ge=0, lt=2**32, description="of few-shot examples and of the bootstrap")
    gate: Gate | None = None
    controls: Flag = Field(
        True,  # noqa: FBT003  (pydantic's default)
        description="with spear: measure uniform interpolation, random tensors and the others as well",
    )

    @model_validator(mode="after")
    def _gate_measured(self) -> Self:
        """A gate that nothing is measured for could only fail."""
        if self.gate and self.gate.min_retention is not None and not self.general:
            raise ValueError("gate.min_retention is asked for, but general names no task")
        if self.gate and self.gate.min_gain_kept is not None and not self.domain:
            raise ValueError("gate.min_gain_kept is asked for, but domain names no task")
        return self

    @model_validator(mode="after")
    def _calibration_apart(self) -> Self:
        """What a choice was made on shows nothing about it."""
        labels = {task.label for task in self.tasks}
        for task in self.calibration.tasks if self.calibration else ():
            if task.label in labels and isinstance(task, FileTask):
                raise ValueError(f"calibration task {task.label} has the name of a task to report on: rename it")
            if source(task) in {source(other) for other in self.tasks}:
                raise ValueError(f"calibration task {task.label} is one of the tasks to report on: keep them apart")
        return self


def source(task: AnyTask) -> tuple[str, ...]:
    """Where a task's items come from: tasks of one source hold the same items."""
    if isinstance(task, RegisteredTask):
        return ("registered", task.task)
    return ("file", task.repo.lower(), task.revision, task.path)
