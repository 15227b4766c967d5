"""How well the fast estimate ranks, wherever the cache happens to know the exact spectra of the same pair."""

import math
from collections.abc import Sequence

from worker.pipeline.pair import Pair
from worker.pipeline.spectra import Spectra
from worker.scores import Part, Row, SpectrumPair, make_row, rank
from worker.scores.ranking import percentiles
from worker.spectra import Precision

FEWEST = 5  # tensors from which a rank correlation is worth telling
EXACT: tuple[Precision, ...] = ("exact", "single")


def agreement(rows: Sequence[Row], *, pair: Pair) -> tuple[float, int] | None:
    """Spearman's rank correlation of the estimated `rows`' scores with exact ones, and over how many tensors.

    Nothing is computed for it: None where the cache knows the exact spectra of fewer than five of them.
    """
    by_name = {part.name: part for tensor in {row["tensor"] for row in rows} for part in pair.parts(tensor)}
    both = [(row, exact) for row in rows if (exact := _exact_row(row, by_name[row["name"]], pair=pair))]
    if len(both) < FEWEST:
        return None
    weights, ranking = pair.method.weights.model_dump(), pair.method.ranking
    fast, true = (rank(each, weights=weights, ranking=ranking) for each in zip(*both, strict=True))
    return spearman([row["score"] or 0.0 for row in fast], [row["score"] or 0.0 for row in true]), len(both)


def spearman(one: Sequence[float], two: Sequence[float]) -> float:
    """Spearman's rank correlation, equal values sharing their mean rank; 0 where all of one side are equal."""
    ranks = [percentiles(values) for values in (one, two)]
    means = [math.fsum(each) / len(each) for each in ranks]
    first, second = ([value - mean for value in each] for each, mean in zip(ranks, means, strict=True))
    size = math.sqrt(math.fsum(a * a for a in first) * math.fsum(b * b for b in second))
    return math.fsum(a * b for a, b in zip(first, second, strict=True)) / size if size > 0 else 0.0


def _exact_row(row: Row, part: Part, *, pair: Pair) -> Row | None:
    """The row as the cached exact spectra would have it; None for an exact row, or where the cache lacks them."""
    if row["precision"] != "fast":
        return None
    spectra = Spectra(device=pair.device, known=pair.known)
    for precision in EXACT:
        values = [spectra.peek(side, part, precision=precision) for side in (pair.base, pair.adapted)]
        base, adapted = values
        if base is not None and adapted is not None:
            found = SpectrumPair(base=base, adapted=adapted, shape=part.shape, precision="exact", svdr_error=0.0)
            return make_row(
                row, spectra=found, base_norm=row["base_norm"] or 0.0, delta_norm=row["delta_norm"] or 0.0, delta=None,
                estimator=pair.method.snr, reference=pair.method.snr_reference, variant=pair.method.svdr,
            )  # fmt: skip
    return None
