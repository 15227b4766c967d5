"""WiSE-FT."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from app.recipes.methods.base import MethodParameters, Setting, within


class WiseFtParameters(MethodParameters):
    """Uniform interpolation (1 - alpha) · base + alpha · expert. Source: Wortsman et al. (arXiv 2109.01903)."""

    max_experts: ClassVar[int | None] = 1

    name: Literal["wise_ft"] = "wise_ft"
    alpha: Annotated[Setting, within(0, 1)] = Field(
        0.5, description="0 to 1: the expert's share; 0 is the base, 1 the expert"
    )
