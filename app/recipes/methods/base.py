"""What the parameter classes of all merge methods share: bounds, and values by name filter or over depth."""

from collections.abc import Callable, Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.recipes.scalars import Flag, Number, Text, Whole


class MethodParameters(BaseModel):
    """Base of all parameter classes.

    A subclass names its method by `name: Literal["..."]`, says in its docstring what it computes and from which
    source, and sets the bounds on the number of experts; its fields are the method's parameters. Those named in
    `per_expert` may stand in an expert too, for that one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_by_name=True, serialize_by_alias=True)

    min_experts: ClassVar[int] = 1
    max_experts: ClassVar[int | None] = None
    about_base: ClassVar[bool] = False
    """whether experts count by their task vectors alone: then the base is none of them, though it be listed"""
    per_expert: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def method_name(cls) -> str:
        return str(cls.model_fields["name"].annotation.__args__[0])  # type: ignore[union-attr]


class Conditional(BaseModel):
    """A value for the tensors whose names contain `filter`; without a filter (or with `*`), for all."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    filter: Text | None = None
    value: Number | Annotated[tuple[Number, ...], Field(min_length=1)]


Setting = (
    Number
    | Annotated[tuple[Number, ...], Field(min_length=1)]
    | Annotated[tuple[Conditional, ...], Field(min_length=1)]
)
"""A number; a list of numbers, interpolated over the layers; or conditionals, of which the first that matches counts.
As in mergekit, depth is the layer's index over the last layer's, and 0 for tensors outside of layers."""


def within(low: float, high: float) -> AfterValidator:
    """Validates that every number of a setting lies in `[low, high]`."""
    return AfterValidator(_checked(lambda value: low <= value <= high, f"must lie between {low:g} and {high:g}"))


def _checked(holds: Callable[[float], bool], message: str) -> Callable[[Setting], Setting]:
    def check(setting: Setting) -> Setting:
        for number in numbers(setting):
            if not holds(number):
                raise ValueError(f"{number:g}: {message}")
        return setting

    return check


def numbers(setting: Setting) -> Iterator[float]:
    """All numbers that a setting holds."""
    if isinstance(setting, tuple):
        for part in setting:
            yield from numbers(part.value if isinstance(part, Conditional) else part)
    else:
        yield setting


def resolve(setting: Setting, *, tensor: str, depth: float) -> float | None:
    """The number for one tensor, `depth` in 0..1; `None` where no conditional matches."""
    if not isinstance(setting, tuple):
        return setting
    for part in setting:
        if isinstance(part, Conditional) and (part.filter in (None, "*") or str(part.filter) in tensor):
            return resolve(part.value, tensor=tensor, depth=depth)
    values = [part for part in setting if not isinstance(part, Conditional)]
    if not values:
        return None
    place = depth * (len(values) - 1)
    before = int(place)
    after = min(len(values) - 1, before + 1)
    return (1 - (place - before)) * values[before] + (place - before) * values[after]


Share = Annotated[Setting, within(0, 1)]
Seed = Annotated[
    Whole,
    Field(ge=0, lt=2**63, description="0 or more, below 2^63: what random masks start from; the same number gives the "
          "same merge"),
]  # fmt: skip
Rescale = Annotated[
    Flag,
    Field(description="multiply what is kept so that the sum of its magnitudes is that of the whole task vector"),
]
Agreeing = Annotated[
    Flag,
    Field(description="divide each entry by the sum of the weights of those experts that agree with the elected sign"),
]
"""what `normalize` means where a sign is elected"""
Dtype = Literal["float32", "bfloat16", "float16"]


class Compatible(MethodParameters):
    """Parameters of methods that can reproduce mergekit 0.1.5 bit for bit."""

    compat: Literal["mergekit"] | None = Field(
        None, description="'mergekit' reproduces mergekit 0.1.5 bit for bit, its arithmetic in `dtype` included; slower"
    )
    dtype: Dtype | None = Field(
        None, description="mergekit's dtype: of compat mode's arithmetic, and of the output unless that has its own"
    )


class TaskVectors(MethodParameters):
    """Parameters of the methods that add up task vectors (expert - base)."""

    about_base: ClassVar[bool] = True
    per_expert: ClassVar[tuple[str, ...]] = ("weight",)

    weight: Setting = Field(
        1.0, description="any number: how much the expert counts beside the others; in an expert, for that one"
    )
    normalize: Flag = Field(default=False, description="divide by the sum of the weights")
    lambda_: Setting = Field(1.0, alias="lambda", description="factor of the summed task vectors")
    int8_mask: Flag = Field(default=False, description="accepted for mergekit's sake; changes nothing here")
