"""The stage `selecting`: from ranked rows to what is restored."""

from collections.abc import Sequence

from app.hub.headers import TensorInfo
from app.recipes.methods.spear import SpearParameters
from worker.checkpoints.open import open_model
from worker.pipeline.score import FLOATS, parameters
from worker.pipeline.task import Task
from worker.scores import Part, Row, Selection, blank_row, choose, place
from worker.scores.selection import Rules


def select(task: Task, rows: Sequence[Row]) -> Selection:
    """Apply the recipe's policy to the ranked `rows`; the model's other tensors count in the shares."""
    return choose(rows, others=unscored(task, rows), rules=rules_of(parameters(task)))


def rules_of(method: SpearParameters) -> Rules:
    """What the recipe says about the selection."""
    return Rules(
        share=method.share, budget_bytes=method.budget_bytes, budget_parameters=method.budget_parameters, t=method.t,
        ranking=method.ranking, unit=method.unit, include=method.include, exclude=method.exclude,
        t_top=method.t_top, sets=((method.freeze, 0.0), *((each.patterns, each.t) for each in method.restore)),
    )  # fmt: skip


def unscored(task: Task, rows: Sequence[Row]) -> list[Row]:
    """Rows of the adapted model's tensors that are not among `rows`."""
    scored = {row["tensor"] for row in rows}
    with open_model(task.experts[0].path, base=task.base.path) as checkpoint:
        floats = {name: info for name, info in sorted(checkpoint.tensors.items()) if info.dtype in FLOATS}
    return [_blank(name, info=info) for name, info in floats.items() if name not in scored]


def _blank(name: str, *, info: TensorInfo) -> Row:
    """The row of a tensor that is not scored."""
    spot = place(name)
    whole = Part(
        name=name, tensor=name, unit=name, module_type=spot.module_type, layer=spot.layer, expert=spot.expert,
        shape=info.shape, cut=lambda tensor: tensor,
    )  # fmt: skip
    return blank_row(whole, itemsize=info.nbytes // max(info.elements, 1))
