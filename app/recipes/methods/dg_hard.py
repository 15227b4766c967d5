"""DG-Hard."""

from typing import ClassVar, Literal

from pydantic import Field

from app.recipes.methods.base import MethodParameters
from app.recipes.scalars import Number, Whole


class DgHardParameters(MethodParameters):
    """Keeps of each task vector the singular directions above the noise's threshold. Source: arXiv 2605.20296.

    Removes what looks like noise, so it cannot repair damage done by a low-rank adapter.
    """

    max_experts: ClassVar[int | None] = 1

    name: Literal["dg_hard"] = "dg_hard"
    scale: Number = Field(1.0, gt=0, le=100, description="factor of the threshold")
    min_elements: Whole = Field(1024, ge=1, description="smaller tensors are the expert's")
