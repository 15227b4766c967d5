"""NearSwap."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from app.recipes.methods.base import MethodParameters, Setting, within


class NearswapParameters(MethodParameters):
    """Moves the base's values to the expert's where they are near: weight clip(t/|difference|, 0, 1), as mergekit."""

    max_experts: ClassVar[int | None] = 1

    name: Literal["nearswap"] = "nearswap"
    t: Annotated[Setting, within(0, 1e6)] = Field(

        description="0 to 1,000,000: the difference up to which a value becomes the expert's; beyond, it "
        "moves by t towards it",
    )
