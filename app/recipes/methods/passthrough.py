"""Passthrough."""

from typing import ClassVar, Literal

from pydantic import Field

from app.recipes.methods.base import MethodParameters, Setting


class PassthroughParameters(MethodParameters):
    """One expert as it is, or scaled. Source: mergekit."""

    max_experts: ClassVar[int | None] = 1

    name: Literal["passthrough"] = "passthrough"
    scale: Setting | None = Field(
        None, description="any number: the factor of every value; by default the values stay as they are"
    )
