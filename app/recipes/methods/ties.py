"""TIES."""

from typing import ClassVar, Literal

from app.recipes.methods.base import Compatible, Share, TaskVectors
from app.recipes.scalars import Flag


class TiesParameters(TaskVectors, Compatible):
    """Trims each task vector to its largest entries, elects a sign per entry, and averages those that agree with it.

    Source: Yadav et al. (arXiv 2306.01708), trimming per tensor as mergekit does.
    """

    per_expert: ClassVar[tuple[str, ...]] = ("weight", "density")

    name: Literal["ties"] = "ties"
    density: Share = 1.0
    normalize: Flag = True
    rescale: Flag = False
