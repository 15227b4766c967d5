"""DELLA."""

from typing import ClassVar, Literal

from pydantic import Field

from app.recipes.methods.base import Share, TaskVectors
from app.recipes.scalars import Flag, Whole


class DellaParameters(TaskVectors):
    """Drops at random, small entries more often, rescales, and elects a sign per entry. Source: arXiv 2406.11617."""

    per_expert: ClassVar[tuple[str, ...]] = ("weight", "density", "epsilon")

    name: Literal["della"] = "della"
    density: Share = 1.0
    epsilon: Share = 0.15
    normalize: Flag = True
    rescale: Flag = True
    seed: Whole = Field(0, ge=0, lt=2**63)
