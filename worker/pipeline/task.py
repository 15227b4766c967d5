"""What the supervisor hands to the computing child, and what the child says back over its pipe.

The child has no credentials, no database and no network: everything it needs is on disk, named here.
"""

import json
import time
from pathlib import Path
from typing import Any, BinaryIO, Literal

from pydantic import BaseModel, ConfigDict

from app.hub.adapters import ADAPTER_CONFIG, applied_digests
from app.recipes import Measuring, Recipe, Scoring, Study
from app.recipes.evaluation import Evaluation, FileTask
from app.recipes.methods.base import MethodParameters


class Input(BaseModel):
    """One checkpoint, already on disk and verified."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    repo: str
    revision: str
    commit: str
    license: str | None = None
    path: Path
    digests: dict[str, str]
    """digest of every file, `sha256:<hex>` or `git:<hex>` (the git blob's oid), by its path inside the repo"""

    @property
    def is_adapter(self) -> bool:
        """Whether this is a LoRA adapter, which is read over the base."""
        return (self.path / ADAPTER_CONFIG).is_file()

    def over(self, base: "Input") -> "Input":
        """With the digests of the files that are read: an adapter reads as the base's files, changed by it."""
        if not self.is_adapter:
            return self
        return self.model_copy(update={"digests": applied_digests(base=base.digests, adapter=self.digests)})


class Source(BaseModel):
    """What tasks are made of: files of a data set or of another repository, already on disk and verified."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    repo: str
    repo_type: Literal["dataset", "model"]
    revision: str
    commit: str
    path: Path
    digests: dict[str, str]

    def holds(self, task: FileTask) -> bool:
        """Whether the task's file is here."""
        kind = task.repo_type in (None, self.repo_type)
        return kind and (task.repo, task.revision) == (self.repo, self.revision) and task.path in self.digests


class Again(BaseModel):
    """The making again of an earlier result."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    decisions: dict[str, float] | None = None
    """what the earlier run decided: t of every tensor that it chose; without it, the choice is made anew"""
    measured: bool = False
    """whether what the recipe wants measured is measured"""


class Task(BaseModel):
    """The child's whole input.

    `inputs[0]` is the base, then the experts in the recipe's order, then the models of an evaluation on its own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    job_id: str
    attempt: int
    recipe: Recipe | Scoring | Measuring | Study
    inputs: tuple[Input, ...]
    work_dir: Path
    """the job's own directory: `output/` holds what will be published, everything else stays private"""
    spectra: Path | None = None
    """JSON lines of cached spectra (see `worker.spectra.record`), where the cache knew some"""
    sources: tuple[Source, ...] = ()
    """what the evaluation's tasks are made of"""
    sheets: Path | None = None
    """JSON lines of answer sheets that are known (see `worker.evaluation.kept`)"""
    again: Again | None = None
    """where an earlier result is made again"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 1
    warnings: tuple[str, ...] = ()
    """what the checks before queueing wanted said"""

    @property
    def merging(self) -> Recipe:
        """The recipe of a task that merges."""
        if not isinstance(self.recipe, Recipe):
            raise TypeError("this task only scores")
        return self.recipe

    @property
    def replayed(self) -> dict[str, float] | None:
        """The decisions of an earlier run, where they are to be taken as they are."""
        return self.again.decisions if self.again else None

    @property
    def method(self) -> MethodParameters:
        """The method's parameters; only of a task that merges or scores."""
        if not isinstance(self.recipe, Recipe | Scoring):
            raise TypeError("this task neither merges nor scores")
        return self.recipe.method

    @property
    def evaluation(self) -> Evaluation | None:
        """What the recipe wants measured."""
        if isinstance(self.recipe, Scoring) or (self.again and not self.again.measured):
            return None
        return self.recipe.evaluation

    @property
    def output(self) -> Path:
        return self.work_dir / "output"

    @property
    def base(self) -> Input:
        return self.inputs[0]

    @property
    def experts(self) -> tuple[Input, ...]:
        return self.inputs[1 : 1 + len(self.recipe.experts)]

    @property
    def models(self) -> tuple[Input, ...]:
        """What an evaluation on its own measures beside base and experts."""
        return self.inputs[-len(self.recipe.models) :] if isinstance(self.recipe, Measuring) else ()


BEAT_SECONDS = 2.0


class Reporter:
    """The child's end of the pipe: one JSON object per line.

    Kinds: stage, step, beat, spectrum, sheet, warning, error, done.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._beaten = time.monotonic()

    @property
    def stream(self) -> BinaryIO:
        """The pipe itself, for a reporter that stands before this one."""
        return self._stream

    def stage(self, name: str, *, total: float, unit: str) -> None:
        """A stage begins; `total` is its amount of work in `unit` (tensors, bytes, flops)."""
        self._say("stage", name=name, total=total, unit=unit)

    def step(self, *, done: float, name: str, **data: Any) -> None:
        """One tensor (or file) is finished; `done` is the stage's work done so far, never falling."""
        self._say("step", done=done, name=name, **data)

    def spectrum(self, record: dict[str, Any]) -> None:
        """A newly computed spectrum for the cache."""
        self._say("spectrum", record=record)

    def sheet(self, record: dict[str, Any]) -> None:
        """A new answer sheet for the cache."""
        self._say("sheet", record=record)

    def beat(self) -> None:
        """Work goes on, though there is nothing to tell yet; may be said as often as one likes."""
        if time.monotonic() - self._beaten > BEAT_SECONDS:
            self._beaten = time.monotonic()
            self._say("beat")

    def warning(self, message: str) -> None:
        self._say("warning", message=message)

    def error(self, *, code: str, message: str, names: dict[str, Any]) -> None:
        self._say("error", code=code, message=message, names=names)

    def done(self, summary: dict[str, Any]) -> None:
        """The last word: `{"selected", "scored", "metrics", "manifest_sha256"}`."""
        self._say("done", summary=summary)

    def _say(self, kind: str, **data: Any) -> None:
        self._stream.write(json.dumps({"kind": kind, **data}).encode() + b"\n")
        self._stream.flush()
