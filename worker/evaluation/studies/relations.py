"""How alike the experts are, and whether that goes with what their merges win."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from worker.evaluation.sheets import Kind
from worker.evaluation.studies import schema
from worker.evaluation.studies.results import Results
from worker.evaluation.studies.similarity import Gram, spearman


def pairs(results: Results, gram: Gram) -> list[schema.Pair]:
    """Every two experts' task vectors."""
    experts = results.study.experts
    return [
        schema.Pair(experts=(experts[i].repo, experts[j].repo), l2=gram.distance(i, j), cosine=gram.cosine(i, j))
        for i, j in combinations(range(len(experts)), 2)
    ]


def correlations(results: Results, outcomes: Sequence[schema.Outcome], gram: Gram) -> list[schema.Correlation]:
    """Of each method alone and of all together; a merge of more than two experts has its pairs' mean similarity."""
    several = [one for one in outcomes if len(one.experts) > 1]
    repos = [expert.repo for expert in results.study.experts]
    found = []
    for method in (*dict.fromkeys(one.method for one in several), "all"):
        some = [one for one in several if method in (one.method, "all")]
        for similarity in ("l2", "cosine"):
            for against in ("gain", "emerged"):
                points = [
                    (x, y)
                    for one in some
                    if (x := _similarity(one, gram, repos=repos, by=similarity)) is not None
                    and (y := _result(one, against, kind=results.main_kind)) is not None
                ]
                rank = spearman([x for x, _ in points], [y for _, y in points])
                found.append(schema.Correlation.model_validate({
                    "method": method, "similarity": similarity, "against": against, "rank": rank, "points": points,
                }))  # fmt: skip
    return found


def _similarity(one: schema.Outcome, gram: Gram, *, repos: Sequence[str], by: str) -> float | None:
    numbers = combinations([repos.index(repo) for repo in one.experts], 2)
    values = [gram.distance(i, j) if by == "l2" else gram.cosine(i, j) for i, j in numbers]
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _result(one: schema.Outcome, against: str, *, kind: Kind) -> float | None:
    if against == "emerged":
        return one.emerged / one.items if one.items and one.emerged is not None else None
    return one.macro[kind].gain.value if kind in one.macro else None
