"""A request to score a pair without merging, so that a person can look before restoring."""

from typing import Self

from pydantic import Field, model_validator

from app.recipes.methods.spear import SpearParameters
from app.recipes.parts import LabelName, LabelValue, ModelRef, Part, Priority, QueueSeconds, RuntimeSeconds
from app.recipes.recipe import Expert, parse


class Scoring(Part):
    """Base and adapted checkpoint, and how to score and select; nothing is restored, nothing published."""

    base: ModelRef
    experts: tuple[Expert, ...] = Field(min_length=1, max_length=1)
    method: SpearParameters = SpearParameters()
    labels: dict[LabelName, LabelValue] = Field({}, max_length=16)
    priority: Priority = 0
    max_queue_seconds: QueueSeconds = None
    max_runtime_seconds: RuntimeSeconds = None

    @model_validator(mode="after")
    def _no_search(self) -> Self:
        if self.method.searching:
            raise ValueError("policy 'auto' searches while it merges: score with another policy")
        return self


def parse_scoring(body: object) -> Scoring:
    """As `parse_recipe`, for a scoring request."""
    return parse(Scoring, body)
