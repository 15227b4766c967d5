"""Multi-SLERP."""

from typing import ClassVar, Literal

from pydantic import Field

from app.recipes.methods.base import MethodParameters, Setting
from app.recipes.scalars import Flag, Number


class MultislerpParameters(MethodParameters):
    """The experts' weighted mean direction at their weighted mean length. Source: mergekit."""

    per_expert: ClassVar[tuple[str, ...]] = ("weight",)

    name: Literal["multislerp"] = "multislerp"
    weight: Setting = Field(
        1.0, description="any number: how much the expert counts beside the others; in an expert, for that one"
    )
    normalize_weights: Flag = Field(default=True, description="divide the weights by their sum")
    eps: Number = Field(
        1e-8, gt=0, le=1e-2, description="above 0, to 0.01: lengths below this count as zero"
    )
    task_vectors: Flag = Field(
        default=False, description="of expert - base, with the base added: mergekit's meaning of a base_model"
    )
