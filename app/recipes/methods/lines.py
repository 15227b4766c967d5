"""LiNeS."""

from typing import ClassVar, Literal

from pydantic import Field

from app.recipes.methods.base import MethodParameters
from app.recipes.scalars import Number


class LinesParameters(MethodParameters):
    """base + (alpha + beta · depth) · (expert - base): shallow layers go back to the base. Source: arXiv 2410.17146."""

    max_experts: ClassVar[int | None] = 1

    name: Literal["lines"] = "lines"
    alpha: Number = Field(0.5, ge=0, le=1, description="factor in the first layer, and of what is in no layer")
    beta: Number | None = Field(None, description="what the last layer has more; by default 1 - alpha")
