"""Weighted mean."""

from typing import ClassVar, Literal

from pydantic import Field

from app.recipes.methods.base import Compatible, Setting
from app.recipes.scalars import Flag


class LinearParameters(Compatible):
    """Weighted mean of the experts; list the base as an expert to include it.

    Source: Wortsman et al., "Model soups" (arXiv 2203.05482).
    """

    per_expert: ClassVar[tuple[str, ...]] = ("weight",)

    name: Literal["linear"] = "linear"
    weight: Setting = Field(
        1.0, description="any number: how much the expert counts beside the others; in an expert, for that one"
    )
    normalize: Flag = Field(
        default=True,
        description="divide by the sum of the weights; without it the weighted models are added up as they are",
    )
