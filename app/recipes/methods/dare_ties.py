"""DARE, with TIES's sign election."""

from typing import ClassVar, Literal

from pydantic import Field

from app.recipes.methods.base import Compatible, Share, TaskVectors
from app.recipes.scalars import Flag, Whole


class DareTiesParameters(TaskVectors, Compatible):
    """Drops entries of each task vector at random, rescales the rest, and elects a sign per entry as TIES does.

    Source: Yu et al. (arXiv 2311.03099); rescaling keeps the L1 norm, as mergekit does.
    """

    per_expert: ClassVar[tuple[str, ...]] = ("weight", "density")

    name: Literal["dare_ties"] = "dare_ties"
    density: Share = 1.0
    rescale: Flag = True
    seed: Whole = Field(0, ge=0, lt=2**63)
