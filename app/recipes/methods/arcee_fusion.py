"""Arcee Fusion."""

from typing import ClassVar, Literal

from app.recipes.methods.base import MethodParameters


class ArceeFusionParameters(MethodParameters):
    """Takes over an expert's changes that stand out by |difference| · KL divergence of the row. Source: mergekit."""

    max_experts: ClassVar[int | None] = 1

    name: Literal["arcee_fusion"] = "arcee_fusion"
