"""The stage `selecting`: from ranked rows to what is restored."""

from collections.abc import Sequence

from worker.checkpoints.reader import Checkpoint
from worker.pipeline.score import parameters
from worker.pipeline.task import Task
from worker.scores import Row, Selection, choose, unscored_row
from worker.scores.selection import Rules


def select(task: Task, rows: Sequence[Row]) -> Selection:
    """Apply the recipe's policy to the ranked `rows`; the model's other tensors count in the shares."""
    method = parameters(task)
    scored = {row["name"] for row in rows}
    with Checkpoint.open(task.experts[0].path) as checkpoint:
        tensors = checkpoint.tensors
    others = [
        unscored_row(name, shape=tuple(info.shape), nbytes=info.nbytes)
        for name, info in sorted(tensors.items())
        if name not in scored
    ]
    rules = Rules(
        share=method.share, budget_bytes=method.budget_bytes, budget_parameters=method.budget_parameters, t=method.t,
        ranking=method.ranking, unit=method.unit, include=method.include, exclude=method.exclude,
    )  # fmt: skip
    return choose(rows, others=others, rules=rules)
