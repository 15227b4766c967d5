"""Intervals by the paired bootstrap: items are drawn anew, the same draws for every model."""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from worker.evaluation.sheets import Sheet

ROUNDS = 2000
CONFIDENCE = 0.95
Floats = NDArray[np.float64]


class Estimate(BaseModel):
    """A figure with the ends of its 95 % interval; nulls where it is not defined (say, a share of nothing)."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    value: float | None
    low: float | None = None
    high: float | None = None


def means(sheets: Sequence[Sheet], *, seed: int) -> Floats:
    """The means of several models' sheets of one task, models x (1 + ROUNDS): the observed ones, then those of draws.

    The draws depend on the seed and the task's name only, so that every figure of a task is of the same draws.

    Source: Efron & Tibshirani, An Introduction to the Bootstrap (1993), chapters 6 and 13 (percentile intervals).
    """
    first = sheets[0]
    if any(sheet.items != first.items for sheet in sheets):
        raise ValueError(f"{first.task}: the sheets are of different items")
    draws = _draws(len(first.items), task=first.task, seed=seed)
    values = np.array([sheet.values for sheet in sheets]) @ draws
    weights = np.array([sheet.weights for sheet in sheets]) @ draws
    found: Floats = values / weights
    return found


def estimate(samples: Floats) -> Estimate:
    """Of the observed figure (the first) and those of the draws; draws in which it is not defined do not count.

    Without an observed value there is no estimate; where it is undefined in more than a tenth of the draws there is no
    interval.
    """
    if not np.isfinite(samples[0]):
        return Estimate(value=None)
    drawn = samples[1:][np.isfinite(samples[1:])]
    if len(drawn) < 0.9 * (len(samples) - 1):
        return Estimate(value=float(samples[0]))
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(value=float(samples[0]), low=float(low), high=float(high))


def ratio(above: Floats, below: Floats, *, defined: Callable[[Floats], NDArray[np.bool_]]) -> Floats:
    """`above / below`, NaN where `below` is not as `defined` wants it."""
    holds = defined(below)
    return np.where(holds, above / np.where(holds, below, 1.0), np.nan)


def _draws(count: int, *, task: str, seed: int) -> Floats:
    """How often each item is drawn, items x (1 + ROUNDS); the first column is the sample itself."""
    name = int.from_bytes(hashlib.sha256(task.encode()).digest()[:8], "big")
    drawn = np.random.default_rng([seed, name]).multinomial(count, np.full(count, 1 / count), size=ROUNDS)
    return np.concatenate([np.ones((1, count)), drawn]).T
