"""Passthrough."""

from typing import ClassVar, Literal

from app.recipes.methods.base import MethodParameters, Setting


class PassthroughParameters(MethodParameters):
    """One expert as it is, or scaled. Source: mergekit."""

    max_experts: ClassVar[int | None] = 1

    name: Literal["passthrough"] = "passthrough"
    scale: Setting | None = None
