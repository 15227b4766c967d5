"""Spectra of restored tensors, for the few that the recipe asks to see."""

from collections.abc import Mapping, Sequence
from typing import Any

from worker.checkpoints.reader import Checkpoint
from worker.pipeline.score import parameters
from worker.pipeline.task import Task
from worker.report.spectra import SHOWN
from worker.scores import parts
from worker.scores.modules import matches
from worker.spectra import singular_values

LARGEST = 2048
"""the longest short side whose spectrum is computed for the picture alone: some seconds of one core"""


def restored_spectra(task: Task, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """All singular values, descending, of the merged matrices that `method.show` names, by row.

    Only of tensors that moved part of the way: at t = 0 and t = 1 they are the base's and the adapted model's, which
    the scores have already. What is larger than `LARGEST` is left out.
    """
    show = parameters(task).show
    chosen = [row for row in rows if matches(row["name"], show) or matches(row["tensor"], show)][:SHOWN]
    moved = [row for row in chosen if row["selected"] and 0 < row["t"] < 1 and min(row["shape"]) <= LARGEST]
    if not moved:
        return {}
    with Checkpoint.open(task.output) as checkpoint:
        return {row["name"]: _values(row, checkpoint) for row in moved}


def _values(row: Mapping[str, Any], checkpoint: Checkpoint) -> list[float]:
    name = row["tensor"]
    every = parts(name, shape=checkpoint.tensors[name].shape, config=checkpoint.config)
    part = next(part for part in every if part.name == row["name"])
    values: list[float] = singular_values(part.cut(checkpoint.read(name))).tolist()
    return values
