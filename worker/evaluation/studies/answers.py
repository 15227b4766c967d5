"""Item by item: what a merge answers that none of its constituents could, and what it lost.

Source: arXiv 2511.02451 looks at answer sheets for emergence; the counts are the plain ones.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from worker.evaluation.sheets import Sheet

RIGHT = 0.5
"""from this grade on, an item counts as right"""


class Answers(BaseModel):
    """How many of a task's items emerged (right where all constituents are wrong) or were lost (wrong where one is
    right)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: str
    items: int
    emerged: int
    lost: int


def compare(merged: Sheet, constituents: Sequence[Sheet]) -> Answers | None:
    """The counts; none of a task that grades no item right or wrong."""
    if merged.kind == "loss":
        return None
    if any(sheet.items != merged.items for sheet in constituents):
        raise ValueError(f"{merged.task}: the sheets are of different items")
    now = right(merged)
    before = np.any([right(sheet) for sheet in constituents], axis=0)
    return Answers(
        task=merged.task, items=len(now), emerged=int((now & ~before).sum()), lost=int((~now & before).sum())
    )


def right(sheet: Sheet) -> NDArray[np.bool_]:
    """Which items are right."""
    return np.asarray(sheet.values, dtype=np.float64) >= RIGHT
