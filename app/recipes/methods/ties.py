"""TIES."""

from typing import ClassVar, Literal

from pydantic import Field

from app.recipes.methods.base import Agreeing, Compatible, Rescale, Share, TaskVectors


class TiesParameters(TaskVectors, Compatible):
    """Trims each task vector to its largest entries, elects a sign per entry, and averages those that agree with it.

    Source: Yadav et al. (arXiv 2306.01708), trimming per tensor as mergekit does.
    """

    per_expert: ClassVar[tuple[str, ...]] = ("weight", "density")

    name: Literal["ties"] = "ties"
    density: Share = Field(
        1.0,
        description="0 to 1: the share of each task vector's entries that is kept, the largest ones; in an "
        "expert, for that one",
    )
    normalize: Agreeing = True
    rescale: Rescale = False
