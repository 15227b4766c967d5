"""From scores to one ranking: percentile ranks within groups, and their weighted mean."""

import math
from collections.abc import Mapping, Sequence
from itertools import groupby

from worker.scores.rows import Row, number

UNCHANGED = 1e-7
"""Relative change below which a tensor counts as identical in both models: it scores 0 and is never restored."""


def changed(row: Row) -> bool:
    """Whether the adaptation changed the tensor at all."""
    return number(row, "relative_change") >= UNCHANGED


def group_of(row: Row, *, ranking: str) -> str:
    """The group in which a row is ranked. Embedding, head and each type of expert are always groups of their own."""
    kind = row["module_type"]
    if row["expert"] is not None:
        return f"{kind} of experts"
    return kind if ranking == "module_type" or kind in {"embedding", "head"} else "all"


def rank(rows: Sequence[Row], *, weights: Mapping[str, float], ranking: str = "module_type") -> list[Row]:
    """The scored `rows` with `score` = Σ wᵢ·percentileᵢ / Σ wᵢ in [0, 1], in the order given.

    Percentiles are taken among the changed tensors of a group (see `percentiles`); an unchanged tensor scores 0.
    `weights` maps score names (`snr`, `swci`, `svdr`, `relative_change`) to weights >= 0, at least one above 0.
    """
    scores: dict[str, float] = {}
    ordered = sorted(filter(changed, rows), key=lambda row: (group_of(row, ranking=ranking), row["name"]))
    for _, members in groupby(ordered, key=lambda row: group_of(row, ranking=ranking)):
        scores |= _weighted(list(members), weights=weights)
    return [{**row, "score": scores.get(row["name"], 0.0)} for row in rows]


def percentiles(values: Sequence[float]) -> list[float]:
    """The percentile rank of each value in [0, 1]: the share of the others below it, equal ones counting half.

    A single value ranks 1. Infinite values rank above all finite ones.
    """
    others = len(values) - 1
    if others < 1:
        return [1.0] * len(values)
    below: dict[float, tuple[int, int]] = {}
    for position, value in enumerate(sorted(values)):
        first, _ = below.get(value, (position, 0))
        below[value] = (first, position - first)  # how many are smaller, how many others are equal
    return [(below[value][0] + below[value][1] / 2) / others for value in values]


def _weighted(rows: list[Row], *, weights: Mapping[str, float]) -> dict[str, float]:
    total = math.fsum(weights.values())
    ranks = {key: percentiles([number(row, key) for row in rows]) for key, weight in weights.items() if weight > 0}
    return {
        row["name"]: math.fsum(weights[key] * each[i] for key, each in ranks.items()) / total
        for i, row in enumerate(rows)
    }
