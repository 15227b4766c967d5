"""DELLA."""

from typing import ClassVar, Literal

from pydantic import Field

from app.recipes.methods.base import Agreeing, Rescale, Seed, Share, TaskVectors


class DellaParameters(TaskVectors):
    """Drops at random, small entries more often, rescales, and elects a sign per entry. Source: arXiv 2406.11617."""

    per_expert: ClassVar[tuple[str, ...]] = ("weight", "density", "epsilon")

    name: Literal["della"] = "della"
    density: Share = Field(
        1.0, description="0 to 1: the mean share of each row's entries that is kept; in an expert, for that one"
    )
    epsilon: Share = Field(
        0.15,
        description="0 to 1: how far an entry's chance lies from the density, below for the smallest of its "
        "row, above for the largest; in an expert, for that one",
    )
    normalize: Agreeing = True
    rescale: Rescale = True
    seed: Seed = 0
