"""Karcher mean."""

from typing import Literal

from pydantic import Field

from app.recipes.methods.base import MethodParameters
from app.recipes.scalars import Number, Whole


class KarcherParameters(MethodParameters):
    """The Riemannian mean of the experts' directions, at their mean length. Source: arXiv 2603.04972."""

    name: Literal["karcher"] = "karcher"
    max_iter: Whole = Field(10, ge=1, le=1000, description="1 to 1000: steps towards the mean, at most")
    tol: Number = Field(
        1e-5, gt=0, le=1, description="above 0, to 1: it is found where a step is shorter than this, in radians"
    )
