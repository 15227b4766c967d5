"""DARE, with TIES's sign election."""

from typing import ClassVar, Literal

from pydantic import Field

from app.recipes.methods.base import Compatible, Rescale, Seed, Share, TaskVectors


class DareTiesParameters(TaskVectors, Compatible):
    """Drops entries of each task vector at random, rescales the rest, and elects a sign per entry as TIES does.

    Source: Yu et al. (arXiv 2311.03099); rescaling keeps the L1 norm, as mergekit does.
    """

    per_expert: ClassVar[tuple[str, ...]] = ("weight", "density")

    name: Literal["dare_ties"] = "dare_ties"
    density: Share = Field(
        1.0,
        description="0 to 1: the share of each task vector's entries that is kept, drawn at random; in an "
        "expert, for that one",
    )
    rescale: Rescale = True
    seed: Seed = 0
