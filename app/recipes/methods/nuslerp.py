"""NuSLERP."""

from typing import ClassVar, Literal

from pydantic import Field

from app.recipes.methods.base import MethodParameters, Setting
from app.recipes.scalars import Flag


class NuslerpParameters(MethodParameters):
    """SLERP between two experts by their weights: t = second / (first + second). Source: mergekit."""

    min_experts: ClassVar[int] = 2
    max_experts: ClassVar[int | None] = 2
    per_expert: ClassVar[tuple[str, ...]] = ("weight",)

    name: Literal["nuslerp"] = "nuslerp"
    weight: Setting = Field(
        1.0, description="any number: how much the expert counts beside the others; in an expert, for that one"
    )
    nuslerp_flatten: Flag = Field(default=True, description="a tensor is one vector; else rows or columns are")
    nuslerp_row_wise: Flag = Field(
        default=False, description="without flatten: vectors run along the first dimension, else along the last"
    )
    task_vectors: Flag = Field(
        default=False, description="interpolate expert - base and add the base: mergekit's meaning of a base_model"
    )
