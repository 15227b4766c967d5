"""Model Stock."""

from typing import ClassVar, Literal

from pydantic import Field

from app.recipes.methods.base import MethodParameters
from app.recipes.scalars import Flag


class ModelStockParameters(MethodParameters):
    """Between base and the experts' mean, as far as their angles say. Source: Jang et al. (arXiv 2403.19522)."""

    min_experts: ClassVar[int] = 2
    about_base: ClassVar[bool] = True

    name: Literal["model_stock"] = "model_stock"
    filter_wise: Flag = Field(default=False, description="one angle per row instead of one per tensor")
