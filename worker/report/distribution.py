"""How the relative change is distributed over the scored tensors: the data of the histogram."""

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence

from worker.report.schema import Distribution, Row

BINS = 24


def distribution(rows: Sequence[Row]) -> Distribution:
    """Counts of tensors by relative change, in bins of equal ratios from the least to the most changed tensor.

    Tensors whose change is zero or not finite stand beside the bins, in `unchanged` and `endless`.
    """
    changes = [(row.relative_change, row.selected) for row in rows]
    moved = [(value, selected) for value, selected in changes if value]
    edges = _edges([value for value, _ in moved])
    return Distribution(
        edges=edges,
        restored=_counts((value for value, selected in moved if selected), edges=edges),
        kept=_counts((value for value, selected in moved if not selected), edges=edges),
        unchanged=sum(value == 0 for value, _ in changes),
        endless=sum(value is None for value, _ in changes),
        median=_median([value for value, _ in moved]),
    )


def _edges(values: list[float]) -> tuple[float, ...]:
    """Edges of the bins, rounded outwards to three digits so that they read well; none without values."""
    if not values:
        return ()
    low, high = math.log10(min(values)) - 1e-3, math.log10(max(values)) + 1e-3
    low, high = (low, high) if high - low > 0.1 else (low - 0.05, high + 0.05)
    return tuple(float(f"{10 ** (low + (high - low) * i / BINS):.6g}") for i in range(BINS + 1))


def _counts(values: Iterable[float], *, edges: tuple[float, ...]) -> tuple[int, ...]:
    counts = [0] * max(0, len(edges) - 1)
    for value in values:
        counts[min(max(bisect_right(edges, value) - 1, 0), len(counts) - 1)] += 1
    return tuple(counts)


def _median(values: list[float]) -> float | None:
    ordered = sorted(values)
    return ordered[(len(ordered) - 1) // 2] if ordered else None
