"""DARE, summed."""

from typing import ClassVar, Literal

from pydantic import Field

from app.recipes.methods.base import Compatible, Share, TaskVectors
from app.recipes.scalars import Flag, Whole


class DareLinearParameters(TaskVectors, Compatible):
    """Drops entries of each task vector at random, rescales the rest, and adds them up.

    Source: Yu et al. (arXiv 2311.03099); rescaling keeps the L1 norm, as mergekit does.
    """

    per_expert: ClassVar[tuple[str, ...]] = ("weight", "density")

    name: Literal["dare_linear"] = "dare_linear"
    density: Share = Field(
        1.0,
        description="0 to 1: the share of each task vector's entries that is kept, drawn at random; in an "
        "expert, for that one",
    )
    rescale: Flag = Field(
        default=True,
        description="multiply what is kept so that the sum of its magnitudes is that of the whole task vector",
    )
    seed: Whole = Field(
        0, ge=0, lt=2**63,
        description="0 or more, below 2^63: what random masks start from; the same number gives the same merge",
    )
