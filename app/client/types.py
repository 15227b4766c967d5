"""What the service sends, as the HTTP contract describes it. Plain dictionaries at run time."""

from typing import Any, Literal, TypedDict

Status = Literal["queued", "running", "cancelling", "succeeded", "failed", "cancelled"]


class Stage(TypedDict):
    """One stage of one attempt."""

    name: str
    attempt: int
    started_at: str
    ended_at: str | None


class Progress(TypedDict):
    """How far the running stage is."""

    percent: float
    done: float
    total: float
    unit: str
    eta_seconds: float | None


class Failure(TypedDict):
    """Why a job failed, or what its last attempt met."""

    code: str
    message: str
    stage: str | None
    retryable: bool
    hint: str
    names: dict[str, Any]


class Result(TypedDict):
    """What was made, and where it was published."""

    repo: str | None
    commit: str | None
    url: str | None
    selected: int
    scored: int
    metrics: dict[str, Any]


class Job(TypedDict):
    """A job of any kind."""

    id: str
    kind: str
    status: Status
    stage: str | None
    stages: list[Stage]
    progress: Progress | None
    recipe: dict[str, Any]
    resolved: dict[str, Any]
    labels: dict[str, str]
    result: Result | None
    error: Failure | None
    attempt: int
    max_attempts: int
    retry_of: str | None
    created_at: str
    started_at: str | None
    updated_at: str
    ended_at: str | None
    links: dict[str, str]


class Event(TypedDict):
    """What happened to a job."""

    seq: int
    at: str
    type: str
    level: Literal["info", "warning", "error"]
    stage: str | None
    data: dict[str, Any]
    request_id: str | None
    trace_id: str | None


class Attempt(TypedDict):
    """One attempt at a delivery."""

    at: str
    milliseconds: int
    status_code: int | None
    error: str | None


class Delivery(TypedDict):
    """What a job's webhook was told."""

    number: int
    id: str
    type: str
    url: str
    status: Literal["pending", "delivered", "failed"]
    created_at: str
    ended_at: str | None
    next_attempt_at: str | None
    attempts: list[Attempt]


class Score(TypedDict):
    """One scored tensor; methods may add fields."""

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


class Method(TypedDict):
    """A merge method, with the JSON Schema of its parameters."""

    name: str
    description: str | None
    min_experts: int
    max_experts: int | None
    parameters: dict[str, Any]


class _Checked(TypedDict):
    accepted: bool
    refusals: list[dict[str, Any]]
    warnings: list[str]


class Plan(_Checked, total=False):
    """What a merge would do; all but the first three only where it is accepted."""

    recipe: dict[str, Any]
    resolved: dict[str, Any]
    tensors: int
    parameters: int
    dtypes: list[str]
    bytes_to_download: int
    output_bytes: int
    peak_memory_bytes: int
    disk_bytes: int
