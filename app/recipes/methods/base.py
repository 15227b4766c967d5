"""What the parameter classes of all merge methods share."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict


class MethodParameters(BaseModel):
    """Base of all parameter classes.

    A subclass names its method by `name: Literal["..."]`, says in its docstring what it computes and from which
    source, and sets the bounds on the number of experts; its fields are the method's parameters.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_experts: ClassVar[int] = 1
    max_experts: ClassVar[int | None] = None

    @classmethod
    def method_name(cls) -> str:
        return str(cls.model_fields["name"].annotation.__args__[0])  # type: ignore[union-attr]
