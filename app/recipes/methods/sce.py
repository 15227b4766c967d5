"""SCE."""

from typing import ClassVar, Literal

from pydantic import Field

from app.recipes.methods.base import MethodParameters, Share
from app.recipes.scalars import Flag


class SceParameters(MethodParameters):
    """Selects by variance, weighs by mean squares, erases against the elected sign. Source: arXiv 2408.07990."""

    about_base: ClassVar[bool] = True

    name: Literal["sce"] = "sce"
    select_topk: Share = Field(
        1.0, description="0 to 1: the share of entries that is kept, those of the largest variance over the experts"
    )
    int8_mask: Flag = Field(default=False, description="accepted for mergekit's sake; changes nothing here")
