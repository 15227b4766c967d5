"""A request to measure models that exist already; nothing is merged, nothing published."""

from typing import Self

from pydantic import Field, model_validator

from app.recipes.evaluation import Evaluation
from app.recipes.parts import LabelName, LabelValue, ModelRef, Part, Priority, QueueSeconds, RuntimeSeconds
from app.recipes.recipe import parse


class Measuring(Part):
    """Models and tasks. With `base` and `experts`, retention and gain kept of each model are told as well."""

    models: tuple[ModelRef, ...] = Field(min_length=1, max_length=8)
    base: ModelRef | None = None
    experts: tuple[ModelRef, ...] = Field((), max_length=8, description="what was merged with the base")
    evaluation: Evaluation
    labels: dict[LabelName, LabelValue] = Field({}, max_length=16)
    priority: Priority = 0
    max_queue_seconds: QueueSeconds = None
    max_runtime_seconds: RuntimeSeconds = None

    @model_validator(mode="after")
    def _parents_together(self) -> Self:
        if (self.base is None) != (not self.experts):
            raise ValueError("base and experts go together: shares are taken of both")
        if self.evaluation.gate and self.base is None:
            raise ValueError("a gate needs base and experts")
        if self.evaluation.calibration:
            raise ValueError("evaluation.calibration is for a search, and nothing is searched here")
        return self

    @property
    def parents(self) -> tuple[ModelRef, ...]:
        """The base and the experts, if they were named."""
        return (self.base, *self.experts) if self.base else ()


def parse_measuring(body: object) -> Measuring:
    """As `parse_recipe`, for an evaluation on its own."""
    return parse(Measuring, body)
