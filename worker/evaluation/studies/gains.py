"""Gain and outperform gap of a merge against the models that went into it, on tasks, domains and data sets.

A score is a share of right answers, or minus the nats per token, so that more is always better. The two do not add up:
means are taken of each kind of task alone.

Source: arXiv 2511.02451 names Gain, OG, Macro-Gain and Macro-OG; its equations are not public to us. Read here as
`Gain_t = S_t(m) - mean S_t(constituents)`, `OG_t = S_t(m) - max S_t(constituents)`, and means over tasks.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from worker.evaluation.bootstrap import ROUNDS, Floats, means
from worker.evaluation.sheets import Kind, Sheet

Sheets = Mapping[str, Sheet]
"""one model's answer sheets by task"""


@dataclass(frozen=True)
class About:
    """What a study knows of a task beside its answers."""

    task: str
    role: str
    domain: str
    dataset: str
    kind: Kind


@dataclass(frozen=True)
class Margins:
    """One merge on one task, each 1 + ROUNDS long: the observed figure, then those of bootstrap draws.

    The largest of several noisy scores is too large on average, so `og` errs to the low side on small tasks.
    """

    score: Floats
    gain: Floats
    og: Floats


@dataclass(frozen=True)
class Setup:
    """Against whom a merge is held: `parents` for OG, `reference` for Gain."""

    merged: Sheet
    parents: Sequence[Sheet]
    reference: Sequence[Sheet]


def score(sheet: Sheet) -> float:
    """More is better: the share of right answers, or minus the nats per token."""
    return sheet.mean if sheet.kind == "score" else -sheet.mean


def gain(setup: Setup) -> float:
    """Score minus the reference's mean score."""
    return score(setup.merged) - sum(map(score, setup.reference)) / len(setup.reference)


def outperformance(setup: Setup) -> float:
    """Score minus the best parent's score."""
    return score(setup.merged) - max(map(score, setup.parents))


def margins(setup: Setup, *, seed: int) -> Margins:
    """Gain and OG with bootstrap draws, in which all models answer the same drawn items."""
    sheets = [setup.merged, *setup.parents, *setup.reference]
    found = means(sheets, seed=seed) * (1 if setup.merged.kind == "score" else -1)
    count = len(setup.parents)
    parents, reference = found[1 : 1 + count], found[1 + count :]
    return Margins(score=found[0], gain=found[0] - reference.mean(axis=0), og=found[0] - parents.max(axis=0))


def over_tasks(values: Mapping[str, Floats], tasks: Iterable[About]) -> dict[str, Floats]:
    """Plain means over the tasks of each kind."""
    return {kind: np.mean(group, axis=0) for kind, group in _by_kind(values, tasks).items()}


def over_datasets(values: Mapping[str, Floats], tasks: Iterable[About]) -> dict[str, Floats]:
    """Means over data sets of the means over their tasks, of each kind: a data set of seven tasks counts once."""
    grouped: dict[tuple[str, str], list[Floats]] = {}
    for about in tasks:
        if about.task in values:
            grouped.setdefault((about.kind, about.dataset), []).append(values[about.task])
    inner: dict[str, list[Floats]] = {}
    for (kind, _), group in grouped.items():
        inner.setdefault(kind, []).append(np.mean(group, axis=0))
    return {kind: np.mean(group, axis=0) for kind, group in inner.items()}


def by_domain(values: Mapping[str, Floats], tasks: Sequence[About]) -> dict[str, dict[str, Floats]]:
    """Means over the tasks of each domain, by kind."""
    domains = dict.fromkeys(about.domain for about in tasks)
    return {name: over_tasks(values, [about for about in tasks if about.domain == name]) for name in domains}


def point(value: float) -> Floats:
    """A figure without draws, for means of what is not bootstrapped."""
    return np.full(1, value)


def share(base: Sequence[Sheet], expert: Sequence[Sheet], merged: Sequence[Sheet], *, seed: int) -> Floats:
    """How much of the expert's gain over the base a merge keeps: of the summed scores of a domain's tasks, of one kind.

    NaN where the expert gained nothing: there is nothing to keep.
    """
    totals = np.zeros((3, 1 + ROUNDS))
    for sheets in zip(base, expert, merged, strict=True):
        totals += means(sheets, seed=seed) * (1 if sheets[0].kind == "score" else -1)
    gained = totals[1] - totals[0]
    return np.where(gained > 0, (totals[2] - totals[0]) / np.where(gained > 0, gained, 1.0), np.nan)


def _by_kind(values: Mapping[str, Floats], tasks: Iterable[About]) -> dict[str, list[Floats]]:
    found: dict[str, list[Floats]] = {}
    for about in tasks:
        if about.task in values:
            found.setdefault(about.kind, []).append(values[about.task])
    return found
