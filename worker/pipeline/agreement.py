"""How well the fast estimate ranks, beside exact scores from the cache or of a few tensors scored for it."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from worker.pipeline.pair import Pair
from worker.pipeline.spectra import Side, Spectra
from worker.scores import Part, Row, SpectrumPair, make_row, rank
from worker.scores.ranking import changed, group_of, percentiles
from worker.spectra import Precision

FEWEST = 5  # tensors from which a rank correlation is worth telling
SAMPLED = 0.1  # of what exact scores would cost: the most that is computed for the sake of the comparison
EXACT: tuple[Precision, ...] = ("exact", "single")


class Agreement(NamedTuple):
    """How far estimated and exact scores rank alike."""

    spearman: float
    tensors: int
    sample: str
    """which tensors were compared, in words"""


def known_agreement(rows: Sequence[Row], *, pair: Pair) -> Agreement | None:
    """Of the estimated `rows` with what the cache knows; None where it knows the exact spectra of fewer than five."""
    by_name = {part.name: part for tensor in {row["tensor"] for row in rows} for part in pair.parts(tensor)}
    exact = [found for row in rows if (found := _exact_row(row, by_name[row["name"]], pair=pair))]
    return agreement(rows, exact=exact, pair=pair, sample="those whose exact spectra the cache knew")


def agreement(rows: Sequence[Row], *, exact: Sequence[Row], pair: Pair, sample: str) -> Agreement | None:
    """Spearman's rank correlation of the estimated `rows`' scores with the `exact` ones' of the same names."""
    true_rows = {row["name"]: row for row in exact}
    both = [(row, true_rows[row["name"]]) for row in rows if row["precision"] == "fast" and row["name"] in true_rows]
    if len(both) < FEWEST:
        return None
    weights, ranking = pair.method.weights.model_dump(), pair.method.ranking
    fast, true = (rank(each, weights=weights, ranking=ranking) for each in zip(*both, strict=True))
    scores = [[row["score"] or 0.0 for row in each] for each in (fast, true)]
    return Agreement(spearman=spearman(*scores), tensors=len(both), sample=sample)


def sampled(rows: Sequence[Row], *, pair: Pair) -> tuple[str, list[str]] | None:
    """A module type and five of its estimated tensors, spread evenly by score: worth scoring exactly to compare.

    The cheapest type with so many of them; None where there is none or the five would cost over a tenth of the whole.
    """
    costs = {name: pair.cost(name, way="exact") for name in {row["tensor"] for row in rows}}
    kinds: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row["score"] or 0.0, row["name"])):
        if row["precision"] == "fast" and changed(row):
            kinds.setdefault(group_of(row, ranking=pair.method.ranking), []).append(row)
    large = {kind: members for kind, members in kinds.items() if len({row["tensor"] for row in members}) >= FEWEST}
    if not large:
        return None
    kind = min(large, key=lambda kind: (math.fsum(costs[row["tensor"]] for row in large[kind]) / len(large[kind])))
    names = list(dict.fromkeys(row["tensor"] for row in large[kind]))
    chosen = [names[i * (len(names) - 1) // (FEWEST - 1)] for i in range(FEWEST)]
    if math.fsum(costs[name] for name in chosen) > SAMPLED * math.fsum(costs.values()):
        return None
    return kind, chosen


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
    base, adapted = (_best_known(spectra, side, part) for side in (pair.base, pair.adapted))
    if base is None or adapted is None:
        return None
    found = SpectrumPair(base=base, adapted=adapted, shape=part.shape, precision="exact", svdr_error=0.0)
    return make_row(
        row, spectra=found, base_norm=row["base_norm"] or 0.0, delta_norm=row["delta_norm"] or 0.0, delta=None,
        estimator=pair.method.snr, reference=pair.method.snr_reference, variant=pair.method.svdr,
    )  # fmt: skip


def _best_known(spectra: Spectra, side: Side, part: Part) -> Tensor | None:
    found = (spectra.peek(side, part, precision=precision) for precision in EXACT)
    return next((values for values in found if values is not None), None)
