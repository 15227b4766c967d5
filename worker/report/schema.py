"""The shape of report.json: the one source of the job page, the model card and the figures."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from worker.evaluation.bootstrap import Estimate
from worker.evaluation.measures import Measures, Summary


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _Open(BaseModel):
    """A part to which its maker may add; a reader ignores what it does not know."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)


class Job(_Part):
    """Which job this is about."""

    id: str


class Source(_Part):
    """One input, pinned."""

    role: Literal["base", "expert", "model"]
    repo: str
    revision: str
    commit: str
    license: str | None
    adapter: bool = False
    """whether it is a LoRA adapter, which was applied to the base"""


class Method(_Part):
    """The method and every one of its parameters, defaults among them."""

    name: str
    parameters: dict[str, Any]


class Row(_Open):
    """One scored tensor. A score that is infinite or not defined for the tensor is null."""

    name: str
    module_type: str
    layer: int | None = None
    shape: tuple[int, ...] = ()
    parameters: int = 0
    snr: float | None = None
    swci: float | None = None
    svdr: float | None = None
    relative_change: float | None = None
    score: float | None = None
    selected: bool = False
    t: float | None = None


class Module(_Part):
    """The selection within one module type; `share` counts parameters, 0 to 1."""

    module_type: str
    selected: int
    scored: int
    parameters: int
    parameters_scored: int
    share: float


class Selection(_Part):
    """What was chosen: of `scored` tensors `selected`, with `parameters` of `parameters_scored`."""

    selected: int
    scored: int
    parameters: int
    parameters_scored: int
    modules: tuple[Module, ...]
    shares: dict[str, Any] = Field(description="shares of the whole model: bytes, embedding and head among them")


class Merge(_Part):
    """What was done to the tensors: how many by which operation."""

    operations: dict[str, int]
    lerp_fallbacks: int
    bytes: int
    statement: str | None = Field(description="what the fallback of SLERP to LERP means, where there was one")


class Costs(_Open):
    """What the run took. Measured, so it differs from run to run; the published report.json has none of it."""

    attempt: int
    cpu: str
    stages: dict[str, float] = Field({}, description="seconds per stage, by the clock")
    core_seconds: dict[str, float] = Field(
        {}, description="processor seconds per stage of the computing child and its processes"
    )
    cpu_seconds: float | None = None
    peak_rss_bytes: int | None = Field(None, description="of the computing child's largest process")
    spectra_computed: int | None = Field(None, description="matrices of either model whose spectrum was computed")
    spectra_cached: int | None = Field(None, description="matrices whose spectrum the cache had")
    spectra_by_model: dict[str, int] = Field(
        {}, description="the same apart: base_computed, base_cached, adapted_computed, adapted_cached"
    )
    items_asked: int | None = Field(None, description="items of tasks that models were asked; the others were known")
    fast_agreement: dict[str, Any] | None = Field(
        None, description="of estimated scores with exact ones: rank correlation (spearman), tensors, which (sample)"
    )


class Outside(_Part):
    """A scored tensor that stands in no layer: an embedding, a head."""

    name: str
    module_type: str
    score: float | None
    selected: bool


class Distribution(_Part):
    """How many scored tensors changed how much: bins of equal ratios of ‖Wa - Wb‖ / ‖Wb‖, none without a change."""

    edges: tuple[float, ...] = Field(description="one more than there are bins, rising")
    restored: tuple[int, ...]
    kept: tuple[int, ...]
    unchanged: int
    endless: int = Field(description="tensors whose relative change is infinite: the base's is zero")
    median: float | None = Field(description="of the changed tensors")


class Spectrum(_Part):
    """Singular values of a scored matrix at some ranks (1 is the largest), four digits, in the weights' unit."""

    name: str
    shape: tuple[int, ...]
    count: int = Field(description="how many singular values there are")
    precision: str | None = Field(description="`fast` where the spectrum is an estimate")
    ranks: tuple[int, ...]
    edge: float | None = Field(description="the base's noise edge: what pure noise of its size would reach")
    edge_adapted: float | None
    base: tuple[float, ...]
    adapted: tuple[float, ...]
    merged: tuple[float, ...] | None = Field(description="of the restored matrix, where it was computed")
    selected: bool
    t: float | None


Grid = tuple[tuple[float | None, ...], ...]
"""Values by module (rows) and layer (columns)."""


class Heatmap(_Part):
    """Scores by module (rows) and layer (columns). A cell of several tensors holds their mean; an empty one null."""

    metric: Literal["score"] = "score"
    modules: tuple[str, ...]
    layers: tuple[int, ...]
    score: Grid
    relative_change: Grid
    snr: Grid
    swci: Grid
    svdr: Grid
    restored: tuple[tuple[float, ...], ...] = Field(description="share of the cell's tensors that was restored, 0 to 1")
    outside: tuple[Outside, ...]


class Gate(_Part):
    """What the recipe asked for before publishing, and whether the result reached it."""

    min_retention: float | None
    min_gain_kept: float | None
    on_fail: Literal["block", "warn"]
    passed: bool
    reasons: tuple[str, ...] = Field(description="why not; empty where it passed")


class Point(_Part):
    """One model between base and adapted, measured in memory or as it was merged."""

    kind: Literal["base", "adapted", "candidate", "control", "chosen"]
    name: str = Field(description="uniform, random, random_embedding, relative_change, dg_hard, spear, auto, ...")
    label: str
    settings: dict[str, Any] = Field({})
    seed: int | None = None
    share: float | None = Field(None, description="share of the parameters that were restored, 0 to 1")
    on: Literal["held_out", "calibration"] = "held_out"
    retention: Estimate
    gain_kept: Estimate


class Diagnosis(_Open):
    """What to look at: too much restored, too little, a control that is as good."""

    kind: str
    message: str
    groups: tuple[str, ...] = ()
    setting: str | None = Field(None, description="the change of the recipe that would mend it")


class Value(_Part):
    """What one model reached on one task."""

    task: str
    kind: Literal["loss", "score"]
    metric: str
    unit: str
    items: int
    value: Estimate


class Measured(_Part):
    """One model of an evaluation: every task's value, and the shares where base and experts were named."""

    repo: str
    revision: str
    commit: str
    tasks: tuple[Value, ...]
    retention: Summary | None
    gain_kept: Summary | None


class Evaluation(Measures):
    """What was measured of base, experts and result. `tasks` is empty where only single models were measured."""

    gate: Gate | None = None
    points: tuple[Point, ...] = ()
    search: dict[str, Any] | None = Field(None, description="how `policy: auto` came to its strengths")
    diagnosis: tuple[Diagnosis, ...] = ()
    prediction: dict[str, Any] | None = Field(None, description="whether a tensor's score told what restoring it does")
    models: tuple[Measured, ...] = Field((), description="of an evaluation on its own: each model")
    settings: dict[str, Any] = Field({})


class Report(_Part):
    """report.json."""

    schema_version: Literal[2] = 2
    verdict: str
    job: Job
    recipe: dict[str, Any]
    inputs: tuple[Source, ...]
    method: Method
    selection: Selection
    merge: Merge
    verification: dict[str, Any]
    warnings: tuple[str, ...]
    engine: dict[str, str]
    costs: Costs | None
    evaluation: Evaluation | None = Field(None, description="null where the recipe asks for none")
    heatmap: Heatmap
    distribution: Distribution
    spectra: tuple[Spectrum, ...] = Field(description="of the tensors that the recipe's method.show names")
    scores: tuple[Row, ...]


def json_schema() -> dict[str, Any]:
    """The JSON Schema of report.json (draft 2020-12)."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Report.model_json_schema(mode="serialization")}
