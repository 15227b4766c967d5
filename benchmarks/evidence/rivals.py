"""The rivals: every selection and every control that a pair is measured with, as points between its two models."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

from worker.evaluation.controls import Candidate, at_random, by_relative_change, dg_hard, uniform
from worker.scores import Row, choose, rank
from worker.scores.selection import Rules

CURVE = (0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
STRENGTHS = (0.75, 0.4, 0.0)
DRAWN = (0.75, 0.4)
"""strengths of random selections, and of all where the scores are not compared one by one"""
PRESETS = {"conservative": 0.10, "balanced": 0.25, "aggressive": 0.50}
SCORES = ("snr", "swci", "svdr")


def candidates(
    sizes: Mapping[str, int], rows: Sequence[Row], others: Sequence[Row], *, ablated: bool
) -> Iterator[tuple[str, Candidate]]:
    """By method. With `ablated` each score is taken alone and in pairs as well."""
    for candidate in uniform(tuple(sizes), ts=CURVE):
        yield "uniform", candidate
    for candidate in dg_hard(tuple(sizes)):
        yield "dg_hard", candidate
    yield from _scored(rows, others, strengths=STRENGTHS if ablated else DRAWN)
    aggressive = selection(rows, others, share=0.5)
    for t in DRAWN:
        for family, embedding in (("random", False), ("random_embedding", True)):
            for candidate in at_random(sizes, aggressive, t=t, embedding=embedding):
                yield f"{family} {candidate.seed}", candidate
    if ablated:
        yield from _ablation(rows, others)


def _scored(
    rows: Sequence[Row], others: Sequence[Row], *, strengths: Sequence[float]
) -> Iterator[tuple[str, Candidate]]:
    """spear's presets, and relative change alone."""
    for t in strengths:
        for preset, share in PRESETS.items():
            yield f"spear {preset}", _selected(f"spear {preset}", selection(rows, others, share=share), t=t)
        yield "relative_change", by_relative_change(rows, others=others, rules=Rules(share=0.5, t=t))


def _ablation(rows: Sequence[Row], others: Sequence[Row]) -> Iterator[tuple[str, Candidate]]:
    """Each score alone and in pairs; swci with svdr is spear's own default, and measured as `spear aggressive`."""
    for count in (1, 2):
        for some in combinations(SCORES, count):
            if some != ("swci", "svdr"):
                family, weights = f"only {' + '.join(some)}", dict.fromkeys(some, 1.0)
                for t in STRENGTHS:
                    yield family, _selected(family, selection(rows, others, share=0.5, weights=weights), t=t)


def selection(
    rows: Sequence[Row], others: Sequence[Row], *, share: float, weights: Mapping[str, float] | None = None
) -> dict[str, float]:
    """spear's: the best-scored share of each module type."""
    ranked = rank(rows, weights=weights or {"swci": 0.5, "svdr": 0.5})
    return choose(ranked, others=others, rules=Rules(share=share)).decisions


def _selected(family: str, names: Mapping[str, float], *, t: float) -> Candidate:
    return Candidate(
        name=family, label=f"{family}, t = {t:g}", strengths=dict.fromkeys(names, t), settings={"t": t}
    )
