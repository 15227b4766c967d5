"""A study's tables once more from its answer sheets, by plain numpy and nothing of the service's code.

`python -m benchmarks.study.check report.json sheets.json` says what differs; the second holds `/sheets` by task.
"""

import itertools
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

Json = dict[str, Any]
Figure = tuple[str, float | None, float | None]
"""what it is, what the report says, what the answers say"""


def differences(report: Json, sheets: Json) -> list[str]:
    """Every figure of the report that is not what the answers say."""
    figures = [*_ranks(report)]
    for one in report["outcomes"]:
        figures += [*_margins(report, sheets, one), *_answers(report, sheets, one), *_shares(report, sheets, one)]
    wrong = [(what, told, found) for what, told, found in figures if not same(told, found)]
    return [f"{what}: the report says {told}, the answers {found}" for what, told, found in wrong]


def same(told: float | None, found: float | None) -> bool:
    if told is None or found is None:
        return told is found
    return math.isclose(told, found, rel_tol=1e-9, abs_tol=1e-9)


def score(kind: str, answers: Json) -> float:
    values = np.array(answers["values"], dtype=np.float64)
    return float(values.mean()) if kind == "score" else -float(values.sum() / np.sum(answers["weights"]))


def _parents(report: Json, one: Json) -> list[str]:
    base = report["models"][0]["repo"]
    return list(one["experts"]) if one["stage"] > 1 else [base, *one["experts"]]


def _held(report: Json) -> list[Json]:
    return [row for row in report["tasks"] if row["on"] == "held_out"]


def _margins(report: Json, sheets: Json, one: Json) -> Iterator[Figure]:
    """Gain and OG by task, their means over tasks and over data sets."""
    found: dict[tuple[str, str], dict[str, tuple[str, float]]] = {}
    for row in _held(report):
        task, kind, models = row["task"], row["kind"], sheets[row["task"]]["models"]
        mine = score(kind, models[one["key"]])
        theirs = [score(kind, models[repo]) for repo in _parents(report, one)]
        told = next(each for each in one["tasks"] if each["task"] == task)["figures"]
        for name, value in (("gain", mine - sum(theirs) / len(theirs)), ("og", mine - max(theirs))):
            yield f"{one['key']}, {name} on {task}", told[name]["value"], value
            found.setdefault((kind, name), {})[task] = (row["dataset"], value)
    for (kind, name), by_task in found.items():
        values = list(by_task.values())
        over_tasks = float(np.mean([value for _, value in values]))
        sets = {dataset: [value for other, value in values if other == dataset] for dataset, _ in values}
        over_sets = float(np.mean([np.mean(group) for group in sets.values()]))
        yield f"{one['key']}, {name} over tasks", one["macro"][kind][name]["value"], over_tasks
        yield f"{one['key']}, {name} over data sets", one["macro_datasets"][kind][name]["value"], over_sets


def _answers(report: Json, sheets: Json, one: Json) -> Iterator[Figure]:
    """What emerged and what was lost."""
    counts = []
    for row in (row for row in _held(report) if row["kind"] == "score"):
        right = {name: np.array(each["values"]) >= 0.5 for name, each in sheets[row["task"]]["models"].items()}
        now, before = right[one["key"]], np.any([right[repo] for repo in _parents(report, one)], axis=0)
        counts.append((int(np.sum(now & ~before)), int(np.sum(~now & before))))
    if counts:
        yield f"{one['key']}, emerged", one["emerged"], sum(emerged for emerged, _ in counts)
        yield f"{one['key']}, lost", one["lost"], sum(lost for _, lost in counts)


def _shares(report: Json, sheets: Json, one: Json) -> Iterator[Figure]:
    """What is kept of each expert's gain in its domain."""
    names = report["models"][0]["repo"], None, one["key"]
    for share in one["shares"]:
        about = ("domain", share["domain"], share["kind"])
        tasks = [row["task"] for row in _held(report) if (row["role"], row["domain"], row["kind"]) == about]
        base, expert, merged = (
            sum(score(share["kind"], sheets[task]["models"][name or share["expert"]]) for task in tasks)
            for name in names
        )
        kept = (merged - base) / (expert - base) if expert > base else None
        yield f"{one['key']}, share of {share['expert']}", share["share"]["value"], kept


def _ranks(report: Json) -> Iterator[Figure]:
    """Spearman's rho of similarity and result."""
    for rank in report["correlations"]:
        points = list(_points(report, rank))
        what = f"rho of {rank['method']}, {rank['similarity']} against {rank['against']}"
        yield what, rank["rank"]["rho"], _rho([x for x, _ in points], [y for _, y in points])


def _points(report: Json, rank: Json) -> Iterator[tuple[float, float]]:
    """Mean similarity of the pairs within each chosen merge of several experts, and what it is held against."""
    known = {frozenset(pair["experts"]): pair[rank["similarity"]] for pair in report["pairs"]}
    for one in report["outcomes"]:
        if len(one["experts"]) > 1 and rank["method"] in (one["method"], "all"):
            alike = float(np.mean([known[frozenset(pair)] for pair in itertools.combinations(one["experts"], 2)]))
            if rank["against"] == "gain":
                yield alike, one["macro"][report["main_kind"]]["gain"]["value"]
            elif one["items"]:
                yield alike, one["emerged"] / one["items"]


def _rho(xs: list[float], ys: list[float]) -> float | None:
    """Pearson's correlation of average ranks."""
    if len(xs) < 3 or len(set(xs)) == 1 or len(set(ys)) == 1:
        return None
    one, other = ([np.mean(np.flatnonzero(np.sort(each) == value)) for value in each] for each in (xs, ys))
    return float(np.corrcoef(one, other)[0, 1])


if __name__ == "__main__":
    differing = differences(*(json.loads(Path(name).read_text()) for name in sys.argv[1:3]))
    print("\n".join(differing) or "every figure is what the answers say")
    sys.exit(1 if differing else 0)
