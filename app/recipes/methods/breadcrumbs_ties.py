"""Model Breadcrumbs with TIES's election of signs."""

from typing import ClassVar, Literal

from pydantic import Field

from app.recipes.methods.base import Rescale, Share, TaskVectors


class BreadcrumbsTiesParameters(TaskVectors):
    """Drops each task vector's largest and smallest entries and elects a sign per entry. Source: arXiv 2312.06795."""

    per_expert: ClassVar[tuple[str, ...]] = ("weight", "density", "gamma")

    name: Literal["breadcrumbs_ties"] = "breadcrumbs_ties"
    density: Share = Field(
        1.0,
        description="0 to 1: the share of each task vector's entries that is kept, those in the middle; in "
        "an expert, for that one",
    )
    gamma: Share = Field(
        0.01,
        description="0 to 1: the share of each task vector's largest entries that is dropped first; in an "
        "expert, for that one",
    )
    rescale: Rescale = False
