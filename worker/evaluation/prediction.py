"""Whether a tensor's score tells what restoring it does: tensors restored alone, their scores against the change."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from worker.evaluation.bootstrap import estimate
from worker.scores import Row

SAMPLED = 12
DRAWS = 1000
FEWEST = 5
SCORES = ("score", "snr", "swci", "svdr", "relative_change")


def sampled(rows: Sequence[Row], *, count: int = SAMPLED) -> list[Row]:
    """Scored rows spread evenly over the ranking, one for each stored tensor, from the lowest score to the highest."""
    own = [row for row in rows if row["score"] is not None and row["name"] == row["tensor"]]
    ordered = sorted(own, key=lambda row: (row["score"] or 0.0, row["name"]))
    if len(ordered) <= count:
        return ordered
    return [ordered[round(i * (len(ordered) - 1) / (count - 1))] for i in range(count)]


def predict(rows: Sequence[Row], changes: Sequence[float], *, t: float, seed: int) -> dict[str, Any] | None:
    """Spearman's correlation of each score with the change in retention, with intervals over the tensors drawn.

    None where there are too few tensors for a correlation.
    """
    if len(rows) < FEWEST:
        return None
    found = {name: _correlation([_number(row, name) for row in rows], changes, seed=seed) for name in SCORES}
    return {
        "tensors": len(rows), "t": t, "spearman": {name: told.model_dump() for name, told in found.items()},
        "sample": [
            {"name": row["name"], "score": row["score"], "change": change}
            for row, change in zip(rows, changes, strict=True)
        ],
    }  # fmt: skip


def _correlation(scores: Sequence[float], changes: Sequence[float], *, seed: int) -> Any:
    one, other = np.array(scores), np.array(changes)
    draws = np.random.default_rng(seed).integers(len(one), size=(DRAWS, len(one)))
    every = [np.arange(len(one)), *draws]
    return estimate(np.array([_spearman(one[draw], other[draw]) for draw in every]))


def _spearman(one: Any, other: Any) -> float:
    if len(set(one)) < 2 or len(set(other)) < 2:
        return math.nan
    return float(spearmanr(one, other).statistic)


def _number(row: Row, name: str) -> float:
    value = row[name]  # type: ignore[literal-required]
    return math.inf if value is None else float(value)
