"""DELLA."""

from typing import ClassVar, Literal

from pydantic import Field

from app.recipes.methods.base import Share, TaskVectors
from app.recipes.scalars import Flag, Whole


class DellaLinearParameters(TaskVectors):
    """Drops entries at random, small ones more often, rescales and adds up the rest. Source: arXiv 2406.11617."""

    per_expert: ClassVar[tuple[str, ...]] = ("weight", "density", "epsilon")

    name: Literal["della_linear"] = "della_linear"
    density: Share = 1.0
    epsilon: Share = 0.15
    rescale: Flag = True
    seed: Whole = Field(0, ge=0, lt=2**63)
