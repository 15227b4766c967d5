"""Answer sheets: what one model did on one task, item by item."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator

Kind = Literal["loss", "score"]


class Sheet(BaseModel):
    """The answers of one model to one task's items, in the task's order.

    Of a `loss`, `values` are sums of nats and `weights` the tokens that they are over; of a `score`, `values` lie in
    [0, 1], where 1 is right, and all weights are 1.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    task: str
    kind: Kind
    metric: str
    items: tuple[str, ...]
    """the first 16 hexadecimal digits of each item's SHA-256: the same item has the same name in every sheet"""
    values: tuple[float, ...]
    weights: tuple[float, ...]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if not len(self.items) == len(self.values) == len(self.weights) or not self.items:
            raise ValueError(f"{self.task}: {len(self.items)} items, {len(self.values)} values")
        return self

    @property
    def mean(self) -> float:
        """Nats per token, or the share of right answers."""
        return sum(self.values) / sum(self.weights)

    @property
    def unit(self) -> str:
        return "nats/token" if self.kind == "loss" else "share right"
