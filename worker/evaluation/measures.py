"""What a merge did: retention of general tasks, domain gain kept, flips of items; with intervals.

Sources: retention and gain as in SPEAR-MM (arXiv 2511.08500), read as merged / base and (merged - base) /
(adapted - base); item flips as in arXiv 2510.17776. For losses retention is the share of the loss increase that is
undone: a loss has no zero to take a ratio to.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from worker.evaluation.bootstrap import Estimate, Floats, estimate, means, ratio
from worker.evaluation.sheets import Kind, Sheet

Role = Literal["general", "domain"]
_LEAST = 1e-9  # less of a change than this is none: there is nothing to undo or to keep


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Flips(_Part):
    """Items that were right with the parent and are wrong with the result, and the other way round."""

    lost: int
    won: int


class TaskResult(_Part):
    """One task. `share` is retention where the task is general, and gain kept where it is of the domain."""

    task: str
    role: Role
    ability: str | None
    weight: float
    kind: Kind
    metric: str
    unit: str
    items: int
    base: Estimate
    adapted: Estimate
    adapted_repo: str
    merged: Estimate
    share: Estimate
    adapted_share: Estimate
    """the adapted model's own share: what there was to restore"""
    flips_from_base: Flips | None
    flips_from_adapted: Flips | None


class Summary(_Part):
    """Means over tasks: of the shares (`mean`), and the share of the pooled values (`pooled`), weighted as asked."""

    mean: Estimate
    pooled: Estimate


class Measures(_Part):
    """All of it."""

    tasks: tuple[TaskResult, ...]
    retention: Summary | None
    gain_kept: Summary | None
    abilities: dict[str, Estimate]


class Question(_Part):
    """One task with its answer sheets; `adapted` by the experts' repos, in the recipe's order."""

    role: Role
    ability: str | None = None
    weight: float = 1.0
    base: Sheet
    adapted: dict[str, Sheet]
    merged: Sheet


def measure(questions: Sequence[Question], *, seed: int) -> Measures:
    """The measures of one result."""
    judged = [(question, *_judge(question, seed=seed)) for question in questions]
    return Measures(
        tasks=tuple(result for _, result, _ in judged),
        retention=_summary([(q, samples) for q, _, samples in judged if q.role == "general"], seed=seed),
        gain_kept=_summary([(q, samples) for q, _, samples in judged if q.role == "domain"], seed=seed),
        abilities=_by_ability([(q, samples) for q, _, samples in judged if q.role == "general"]),
    )


def shares(base: Floats, adapted: Floats, model: Floats, *, role: Role, kind: Kind) -> Floats:
    """Retention or gain kept of `model`, sample by sample; NaN where nothing was forgotten or gained."""
    if role == "general" and kind == "score":
        return ratio(model, base, defined=lambda below: below > _LEAST)
    if role == "general":
        return ratio(adapted - model, adapted - base, defined=lambda below: below > _LEAST)
    sign = 1.0 if kind == "score" else -1.0
    return ratio(sign * (model - base), sign * (adapted - base), defined=lambda below: below > _LEAST)


def _judge(question: Question, *, seed: int) -> tuple[TaskResult, Floats]:
    repo = _parent(question)
    sheets = [question.base, question.adapted[repo], question.merged]
    base, adapted, merged = means(sheets, seed=seed)
    kind = question.base.kind
    found = shares(base, adapted, merged, role=question.role, kind=kind)
    result = TaskResult(
        task=question.base.task, role=question.role, ability=question.ability, weight=question.weight, kind=kind,
        metric=question.base.metric, unit=question.base.unit, items=len(question.base.items),
        base=estimate(base), adapted=estimate(adapted), adapted_repo=repo, merged=estimate(merged),
        share=estimate(found), adapted_share=estimate(shares(base, adapted, adapted, role=question.role, kind=kind)),
        flips_from_base=_flips(question.base, question.merged),
        flips_from_adapted=_flips(question.adapted[repo], question.merged),
    )
    return result, found


def _parent(question: Question) -> str:
    """Of several experts, the one that the share is taken of: the best in its domain, the most forgetful elsewhere."""
    better_is_higher = question.base.kind == "score"
    wants_highest = better_is_higher == (question.role == "domain")
    means_of = {repo: sheet.mean for repo, sheet in question.adapted.items()}
    return (max if wants_highest else min)(means_of, key=lambda repo: means_of[repo])


def _flips(parent: Sheet, merged: Sheet) -> Flips | None:
    if parent.kind == "loss":
        return None
    was, is_now = np.array(parent.values) >= 0.5, np.array(merged.values) >= 0.5
    return Flips(lost=int((was & ~is_now).sum()), won=int((~was & is_now).sum()))


def _summary(judged: Sequence[tuple[Question, Floats]], *, seed: int) -> Summary | None:
    if not judged:
        return None
    return Summary(mean=estimate(_mean(judged)), pooled=estimate(_pooled([q for q, _ in judged], seed=seed)))


def _mean(judged: Sequence[tuple[Question, Floats]]) -> Floats:
    """Weighted mean of the shares; a task without a defined share does not count, in any of the draws."""
    defined = [(question, samples) for question, samples in judged if np.isfinite(samples[0])]
    if not defined:
        return np.full(1, np.nan)
    weights = np.array([question.weight for question, _ in defined])
    found: Floats = weights @ np.stack([samples for _, samples in defined]) / weights.sum()
    return found


def _pooled(questions: Sequence[Question], *, seed: int) -> Floats:
    """The share of the weighted mean values; only of one kind of task, since nats and right answers do not add."""
    if len({question.base.kind for question in questions}) > 1:
        return np.full(1, np.nan)
    weights = np.array([question.weight for question in questions])
    each = [means([q.base, q.adapted[_parent(q)], q.merged], seed=seed) for q in questions]
    base, adapted, merged = np.tensordot(weights, np.stack(each), axes=1)
    return shares(base, adapted, merged, role=questions[0].role, kind=questions[0].base.kind)


def _by_ability(judged: Sequence[tuple[Question, Floats]]) -> dict[str, Estimate]:
    groups: dict[str, list[tuple[Question, Floats]]] = {}
    for question, samples in judged:
        if question.ability:
            groups.setdefault(question.ability, []).append((question, samples))
    return {ability: estimate(_mean(group)) for ability, group in sorted(groups.items())}
