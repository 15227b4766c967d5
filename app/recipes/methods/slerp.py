"""Spherical linear interpolation."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from app.recipes.methods.base import Compatible, Setting, within


class SlerpParameters(Compatible):
    """Interpolates on the sphere between the base (t = 0) and one expert (t = 1); every tensor is one vector.

    Source: Shoemake, "Animating rotation with quaternion curves", SIGGRAPH 1985.
    """

    max_experts: ClassVar[int | None] = 1

    name: Literal["slerp"] = "slerp"
    t: Annotated[Setting, within(0, 1)] = Field(description="0 to 1: 0 is the base, 1 the expert")
