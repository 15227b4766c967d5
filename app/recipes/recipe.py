"""The recipe: which checkpoints, which method, what to make of them and where to publish it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar, Union

from pydantic import BaseModel, Field, ValidationError, model_validator

from app.errors import Code, SpearError
from app.recipes.evaluation import TASK_FORMS, Evaluation
from app.recipes.methods import load_all
from app.recipes.methods.base import MethodParameters, Setting, Share
from app.recipes.parts import (
    Branch,
    LabelName,
    LabelValue,
    ModelRef,
    Part,
    Priority,
    QueueSeconds,
    RepoId,
    RuntimeSeconds,
)
from app.recipes.replay import Replay
from app.recipes.scalars import Whole
from app.recipes.webhook import AnyWebhook

M = TypeVar("M", bound=BaseModel)
METHODS = load_all()
PER_EXPERT = ("weight", "density", "gamma", "epsilon")
FORMS = ("recipe form", "mergekit form")
"""Tags of the forms that a request may have; they stand in pydantic's locations, never in pointers."""
KINDS = ("float", "tuple[", "function-after[")
"""Beginnings of the tags that a setting's alternatives have there."""
_NEUTRAL = {"weight": 1.0}  # changes nothing where a method takes no weights
if TYPE_CHECKING:
    AnyMethod = MethodParameters
else:
    AnyMethod = Annotated[Union[tuple(METHODS.values())], Field(discriminator="name")]  # noqa: UP007


class Expert(ModelRef):
    """A fine-tuned checkpoint that goes into the merge. What the method takes per expert stands here or in `method`."""

    weight: Setting | None = None
    density: Share | None = None
    gamma: Share | None = None
    epsilon: Share | None = None


class Target(Part):
    """Where the result is published."""

    repo: RepoId
    branch: Branch = "main"
    private: bool = Field(default=True, strict=True)


class Output(Part):
    """How the result is stored. Without a dtype, each tensor keeps the adapted model's."""

    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    max_shard_bytes: Whole = Field(5_000_000_000, ge=1_000_000)


class Recipe(Part):
    """One merge, as a caller asks for it."""

    base: ModelRef
    experts: tuple[Expert, ...] = Field(min_length=1, max_length=32)
    method: AnyMethod
    target: Target
    output: Output = Output()
    tokenizer_source: Literal["base"] | RepoId | None = Field(
        None,
        description="whose vocabulary and tokenizer the result has: 'base', or an expert's repository; embedding and "
        "head rows are matched by token. Without it, all vocabularies have to be equal.",
    )
    layers: Whole | None = Field(
        None, ge=1, description="refuse models that do not have exactly so many layers"
    )
    scores: str | None = Field(
        None, max_length=64, description="a finished scoring job of this pair: its pinned commits are merged"
    )
    evaluation: Evaluation | None = Field(
        None, description="measured once the result is verified, before it is published"
    )
    replay: Replay | None = Field(
        None, description="take the decisions of this published merge of the same commits, in place of scoring (spear)"
    )
    labels: dict[LabelName, LabelValue] = Field({}, max_length=16)
    priority: Priority = 0
    max_queue_seconds: QueueSeconds = None
    max_runtime_seconds: RuntimeSeconds = None
    webhook: AnyWebhook | None = Field(None, description="told when the job has ended: a URL, or `url` and `events`")

    @model_validator(mode="after")
    def _expert_count(self) -> Self:
        least, most = self.method.min_experts, self.method.max_experts
        if len(self.experts) < least or (most is not None and len(self.experts) > most):
            wanted = str(least) if least == most else f"{least} to {most or 'many'}"
            raise ValueError(f"{self.method.method_name()} takes {wanted} experts, not {len(self.experts)}")
        return self

    @model_validator(mode="after")
    def _expert_parameters(self) -> Self:
        for expert in self.experts:
            given = {name for name in PER_EXPERT if getattr(expert, name) not in (None, _NEUTRAL.get(name))}
            if foreign := sorted(given - set(self.method.per_expert)):
                raise ValueError(f"{self.method.method_name()} takes no {foreign[0]} (expert {expert.repo})")
        return self

    @model_validator(mode="after")
    def _tokenizer_of_an_input(self) -> Self:
        if self.tokenizer_source not in (None, "base", self.base.repo, *(expert.repo for expert in self.experts)):
            raise ValueError(f"tokenizer_source {self.tokenizer_source} is neither the base nor an expert")
        if self.tokenizer_source and (getattr(self.method, "embedding", False) or getattr(self.method, "head", False)):
            raise ValueError("embedding and head cannot be scored where tokenizer_source matches their rows by token")
        return self

    @model_validator(mode="after")
    def _replay_of_decisions(self) -> Self:
        if self.replay and self.method.method_name() != "spear":
            raise ValueError(f"{self.method.method_name()} decides nothing that could be replayed; leave replay out")
        return self

    @model_validator(mode="after")
    def _calibrated(self) -> Self:
        """A search needs tasks of both sides to look at."""
        if self.replay or not getattr(self.method, "searching", None):
            return self
        calibration = self.evaluation.calibration if self.evaluation else None
        if calibration is None or not calibration.general or not calibration.domain:
            raise ValueError("policy 'auto' needs evaluation.calibration with general and with domain tasks")
        if self.tokenizer_source:
            raise ValueError("policy 'auto' compares weights one by one: it goes with no tokenizer_source")
        return self

    @property
    def tokenizer_input(self) -> int | None:
        """The number of the input (0 is the base, then the experts) whose vocabulary the result has, if one is set."""
        if self.tokenizer_source is None:
            return None
        repos = [self.base.repo, *(expert.repo for expert in self.experts)]
        return 0 if self.tokenizer_source == "base" else repos.index(self.tokenizer_source)


def parse_recipe(body: Any, *, strict: bool = True) -> Recipe:
    """The recipe in a decoded JSON body; raises `SpearError(invalid_recipe)` with one entry per bad field.

    The entries are in `names["errors"]` as `{"pointer": "/method/fraction", "detail": ...}`. Where it is not `strict`,
    a truth is taken for a number too, and the like.
    """
    return parse(Recipe, body, strict=strict)


def parse(model: type[M], body: Any, *, strict: bool = True) -> M:
    """The body as a model; raises `SpearError(invalid_recipe)` as `parse_recipe` does."""
    try:
        return model.model_validate(body, strict=None if strict else False)
    except ValidationError as error:
        found = error.errors(include_url=False)
        errors = [{"pointer": pointer(e["loc"]), "detail": reason(e)} for e in found if not _follows(e, found)]
        raise SpearError(
            Code.INVALID_RECIPE, f"{errors[0]['pointer'] or '/'}: {errors[0]['detail']}", errors=errors
        ) from None


def _follows(error: Any, others: list[Any]) -> bool:
    """Whether a list is too short only because its bad items, each with an error of its own, were left out."""
    depth = len(error["loc"])
    deeper = (other["loc"] for other in others if len(other["loc"]) > depth)
    return error["type"] == "too_short" and any(location[:depth] == error["loc"] for location in deeper)


def reason(error: Mapping[str, Any]) -> str:
    """What pydantic says of a field, without its word for errors that our own checks raise."""
    return str(error["msg"]).removeprefix("Value error, ")


def pointer(location: tuple[int | str, ...]) -> str:
    """A JSON pointer (RFC 6901) of a pydantic location, without the tags of unions: the form, the method, a setting's
    kind."""
    if location and location[0] in FORMS:
        location = location[1:]
    parts = [part for i, part in enumerate(location) if not (i == 1 and location[0] == "method" and part in METHODS)]
    parts = [part for part in parts if part not in TASK_FORMS]
    if parts and parts[0] in ("method", "experts"):
        parts = [part for part in parts if not str(part).startswith(KINDS)]
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)
