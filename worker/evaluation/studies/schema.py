"""report.json of a study: every table in one versioned document."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from worker.evaluation.bootstrap import Estimate
from worker.evaluation.sheets import Kind
from worker.evaluation.studies.answers import Answers
from worker.evaluation.studies.choice import Seeds, Spread
from worker.evaluation.studies.similarity import Rank


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


Settings = dict[str, float | int]
ByKind = dict[str, float]
"""a figure by kind of task: `score` (shares of right answers) or `loss` (minus nats per token)"""


class TaskRow(_Part):
    """One task that is reported on, or that settings were chosen on."""

    task: str
    on: Literal["held_out", "calibration"]
    role: Literal["general", "domain"]
    domain: str
    dataset: str
    kind: Kind
    metric: str
    unit: str
    items: int


class ModelRow(_Part):
    """The base (number 0) or an expert; its scores by task, more is better."""

    number: int
    repo: str
    revision: str
    commit: str
    domain: str | None
    norm: float | None = Field(description="L2 norm of the task vector; null for the base")
    scores: dict[str, Estimate]


class CellRow(_Part):
    """One merge. Macro figures are means over the tasks that are reported on, and over their data sets."""

    key: str
    stage: int
    experts: tuple[str, ...]
    method: str
    settings: Settings
    scores: dict[str, float]
    gain: dict[str, float]
    og: dict[str, float]
    macro_gain: ByKind
    macro_og: ByKind
    macro_gain_datasets: ByKind
    macro_og_datasets: ByKind
    calibration_gain: ByKind | None
    emerged: int | None
    lost: int | None


class Figures(_Part):
    """Score, Gain and OG with 95 % intervals."""

    score: Estimate
    gain: Estimate
    og: Estimate


class TaskFigures(_Part):
    """The chosen merge on one task."""

    task: str
    figures: Figures
    answers: Answers | None


class Share(_Part):
    """How much of an expert's gain in its domain the merge keeps."""

    expert: str
    domain: str
    kind: Kind
    share: Estimate


class Outcome(_Part):
    """One set of experts merged by one method, at the settings that calibration chose."""

    stage: int
    experts: tuple[str, ...]
    constituents: tuple[str, ...]
    method: str
    settings: Settings
    key: str
    chosen_on: Literal["calibration", "nothing"] = Field(description="`nothing` where there was one setting alone")
    macro: dict[str, Figures]
    macro_datasets: dict[str, Figures]
    domains: dict[str, dict[str, Figures]]
    tasks: tuple[TaskFigures, ...]
    shares: tuple[Share, ...]
    emerged: int | None
    lost: int | None
    items: int | None = Field(description="items that are right or wrong, over all tasks")
    calibration_gain: float | None
    sensitivity: Spread = Field(description="Macro-Gain of the main kind on the tasks reported on, over all settings")
    seeds: Seeds | None


class Pair(_Part):
    """Two experts' task vectors."""

    experts: tuple[str, str]
    l2: float
    cosine: float | None


class Correlation(_Part):
    """Whether similarity goes with gain, over the merges of two or more experts at their chosen settings."""

    method: str = Field(description="a method, or `all`")
    similarity: Literal["l2", "cosine"]
    against: Literal["gain", "emerged"]
    rank: Rank
    points: tuple[tuple[float, float], ...]


class Published(_Part):
    """A merge that the study asks to publish, as its merge job will be submitted."""

    key: str
    target: str
    branch: str


class Study(_Part):
    """The whole report."""

    schema_version: Literal[1] = 1
    kind: Literal["study"] = "study"
    verdict: str
    job: dict[str, str]
    recipe: dict[str, Any]
    main_kind: Kind = Field(description="the kind of task that settings are chosen by: the commoner")
    gain_reference: str
    tasks: tuple[TaskRow, ...]
    models: tuple[ModelRow, ...]
    cells: tuple[CellRow, ...]
    outcomes: tuple[Outcome, ...]
    pairs: tuple[Pair, ...]
    correlations: tuple[Correlation, ...]
    publications: tuple[Published, ...]
    answers: dict[str, dict[str, str]] = Field(
        description="by task and model (a repository, or a chosen merge's key): 1 for every right item, else 0"
    )
    figures: dict[str, str] = Field(description="what each picture shows, by its name")
    settings: dict[str, Any]
    warnings: tuple[str, ...]
    engine: dict[str, str]
    costs: dict[str, Any] | None


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a study's report (draft 2020-12)."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Study.model_json_schema(mode="serialization")}
