"""What callers see of jobs and events. No field has a default: a client can rely on each being there."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from app.errors import Code
from app.jobs.states import Kind, Status
from app.jobs.tables import Event, Job, Stage

FOLDERS = {Kind.MERGE: "merges", Kind.SCORES: "scores", Kind.EVALUATION: "evaluations", Kind.STUDY: "studies"}
"""where jobs of each kind are found"""


class StageView(BaseModel):
    """One stage of one attempt."""

    name: str
    attempt: int
    started_at: datetime
    ended_at: datetime | None


class ProgressView(BaseModel):
    """How far the running stage is; `eta_seconds` is null until it can be told."""

    percent: float
    done: float
    total: float
    unit: str
    eta_seconds: float | None


class ErrorView(BaseModel):
    """Why the job failed, or what its last attempt met."""

    code: str
    message: str
    stage: str | None
    retryable: bool
    hint: str
    names: dict[str, Any]


class ResultView(BaseModel):
    """What was made, and where it was published; a scoring publishes nothing."""

    repo: str | None
    commit: str | None
    url: str | None
    selected: int
    scored: int
    metrics: dict[str, Any]


class JobView(BaseModel):
    """A merge job."""

    id: str
    kind: str
    status: Status
    stage: str | None
    stages: list[StageView]
    progress: ProgressView | None
    recipe: dict[str, Any]
    resolved: dict[str, Any]
    labels: dict[str, str]
    result: ResultView | None
    error: ErrorView | None
    attempt: int
    max_attempts: int
    retry_of: str | None
    created_at: datetime
    started_at: datetime | None
    updated_at: datetime
    ended_at: datetime | None
    links: dict[str, str]


class JobPage(BaseModel):
    """Jobs, newest first."""

    data: list[JobView]
    next_cursor: str | None


class ScoreView(BaseModel):
    """One scored tensor; methods may add fields."""

    model_config = ConfigDict(extra="allow")

    name: str
    module_type: str
    layer: int | None
    shape: list[int]
    snr: float | None
    swci: float | None
    svdr: float | None
    relative_change: float | None
    score: float | None
    selected: bool
    t: float | None


class ScorePage(BaseModel):
    """Every scored tensor."""

    data: list[ScoreView]


class Refusal(BaseModel):
    """Why a merge would be refused, as its problem would tell."""

    code: Code
    detail: str
    pointer: str | None
    names: dict[str, Any]


class PlanView(BaseModel):
    """What a merge would do. What follows `warnings` is there where it is accepted."""

    accepted: bool
    refusals: list[Refusal]
    warnings: list[str]
    recipe: dict[str, Any] = {}
    resolved: dict[str, Any] = {}
    tensors: int = 0
    parameters: int = 0
    dtypes: list[str] = []
    bytes_to_download: int = 0
    output_bytes: int = 0
    peak_memory_bytes: int = 0
    disk_bytes: int = 0


class EventView(BaseModel):
    """What happened, numbered without gaps."""

    seq: int
    at: datetime
    type: str
    level: str
    stage: str | None
    data: dict[str, Any]
    request_id: str | None
    trace_id: str | None


class EventPage(BaseModel):
    """Events, oldest first."""

    data: list[EventView]
    next_cursor: str | None


def view_job(job: Job, stages: Sequence[Stage]) -> JobView:
    """The job as JSON shows it."""
    path = f"/{FOLDERS[Kind(job.kind)]}/{job.id}"
    parts = ("events", "scores", "report", "cancel", "retry")
    return JobView(
        id=job.id, kind=job.kind, status=Status(job.status), stage=job.stage,
        stages=[StageView.model_validate(stage, from_attributes=True) for stage in stages],
        progress=ProgressView(**job.progress) if job.progress else None,
        recipe=job.recipe, resolved=job.resolved, labels=job.labels,
        result=ResultView(**job.result) if job.result else None,
        error=ErrorView(**job.error) if job.error else None,
        attempt=job.attempt, max_attempts=job.max_attempts, retry_of=job.retry_of, created_at=job.created_at,
        started_at=job.started_at, updated_at=job.updated_at, ended_at=job.ended_at,
        links={"self": path} | {part: f"{path}/{part}" for part in parts},
    )


def view_event(event: Event) -> EventView:
    """The event as JSON shows it."""
    return EventView.model_validate(event, from_attributes=True)
