"""Model Breadcrumbs."""

from typing import ClassVar, Literal

from app.recipes.methods.base import Share, TaskVectors
from app.recipes.scalars import Flag


class BreadcrumbsParameters(TaskVectors):
    """Drops each task vector's largest and smallest entries and adds up the rest. Source: arXiv 2312.06795."""

    per_expert: ClassVar[tuple[str, ...]] = ("weight", "density", "gamma")

    name: Literal["breadcrumbs"] = "breadcrumbs"
    density: Share = 1.0
    gamma: Share = 0.01
    rescale: Flag = False
