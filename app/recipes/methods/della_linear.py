"""DELLA."""

from typing import ClassVar, Literal

from pydantic import Field

from app.recipes.methods.base import Rescale, Seed, Share, TaskVectors


class DellaLinearParameters(TaskVectors):
    """Drops entries at random, small ones more often, rescales and adds up the rest. Source: arXiv 2406.11617."""

    per_expert: ClassVar[tuple[str, ...]] = ("weight", "density", "epsilon")

    name: Literal["della_linear"] = "della_linear"
    density: Share = Field(
        1.0, description="0 to 1: the mean share of each row's entries that is kept; in an expert, for that one"
    )
    epsilon: Share = Field(
        0.15,
        description="0 to 1: how far an entry's chance lies from the density, below for the smallest of its "
        "row, above for the largest; in an expert, for that one",
    )
    rescale: Rescale = True
    seed: Seed = 0
