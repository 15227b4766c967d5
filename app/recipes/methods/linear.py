"""Weighted mean."""

from typing import ClassVar, Literal

from app.recipes.methods.base import Compatible, Setting
from app.recipes.scalars import Flag


class LinearParameters(Compatible):
    """Weighted mean of the experts; list the base as an expert to include it.

    Source: Wortsman et al., "Model soups" (arXiv 2203.05482).
    """

    per_expert: ClassVar[tuple[str, ...]] = ("weight",)

    name: Literal["linear"] = "linear"
    weight: Setting = 1.0
    normalize: Flag = True
