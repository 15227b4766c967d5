"""How far estimated scores can be trusted to rank the tensors of a group, judged without exact ones.

An estimate from column groups (see `worker.spectra.split`) differs from the exact score by a factor. What of it all
tensors of a group share does not change their order; the rest does. Both are seen between the estimate and a second
one from groups half as wide: over synthetic and real groups the logarithm of their quotient scattered as the estimate's
own error did, within a factor of 0.6 to 2 (median 1.3), and the rank correlation expected from that scatter foretold
the true one. That an estimate says of itself how wrong it is, is a bootstrap of its sample (Efron 1979).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from worker.scores.ranking import changed
from worker.scores.rows import Row

LEAST_AGREEMENT = 0.955
"""Least expected rank correlation of estimated with exact scores in a group. The expectation is cautious."""
CAUTION = 1.5  # times the scatter between an estimate and its thinner one: see above
PRIOR, PRIOR_COUNT = 0.1, 2  # a scatter seen twice before anything is: two tensors alone say little about it
ROWS = 256  # of a group compared with all others at once


@dataclass(frozen=True, kw_only=True)
class Doubt:
    """`error`: expected relative error of one estimate, but for what the group shares. `agreement`: expected Spearman
    correlation of the estimates with exact values in the group."""

    error: float
    agreement: float


def doubt(values: Sequence[float], *, thinner: Sequence[float]) -> Doubt:
    """Of a group's estimates of one score, and the `thinner` ones in the same order.

    Estimates that are not above zero and finite have no logarithm: nothing can be told, so all is doubted. One value
    alone has no order to lose.
    """
    if not all(0 < value < math.inf for value in (*values, *thinner)):
        return Doubt(error=math.inf, agreement=0.0)
    sizes, quotients = torch.tensor(values, dtype=torch.float64).log(), torch.tensor(thinner, dtype=torch.float64).log()
    quotients = sizes - quotients
    squares = float((quotients - quotients.median()).square().sum()) + PRIOR_COUNT * PRIOR**2
    error = CAUTION * math.sqrt(squares / (len(values) - 1 + PRIOR_COUNT))
    return Doubt(error=error, agreement=expected_agreement(sizes, error=error))


def expected_agreement(sizes: torch.Tensor, *, error: float) -> float:
    """The expected Spearman correlation of `sizes` with themselves when each is off by a normal `error` > 0.

    Exact: the correlation of two rankings is linear in the second, and a value's expected rank is the sum of the
    chances Φ(difference/(√2·error)) that it is above each other.
    """
    count = len(sizes)
    if count < 2:
        return 1.0
    ranks = sizes.argsort().argsort().to(torch.float64)
    blocks = sizes.split(ROWS)  # type: ignore[no-untyped-call]
    width = math.sqrt(2) * error
    expected = torch.cat([torch.special.ndtr((some[:, None] - sizes) / width).sum(1) for some in blocks])
    middle = (count - 1) / 2  # a value is above itself by a half
    centred = ranks - middle
    return float(centred.dot(expected - 0.5 - middle) / centred.dot(centred))


def judge(rows: Sequence[Row], *, weights: Mapping[str, float]) -> tuple[list[Row], float]:
    """A ranking group's estimated rows with their doubts filled in, and the expected agreement of their scores.

    The agreement is the mean over what the score is made of; the change's size is not an estimate. Rows that are not
    estimated, or of different shapes, cannot be compared with each other (the shared factor depends on the shape): 0.
    Unchanged tensors are not ranked and not counted.
    """
    moved = [row for row in rows if changed(row)]
    if not moved:
        return list(rows), 1.0
    if len({(row["precision"], *row["shape"]) for row in moved}) > 1:
        return list(rows), 0.0
    doubts = {key: _of_score(moved, key=key) for key in ("snr", "svdr", "swci")}
    total = math.fsum(weights.values())
    agreement = math.fsum(w * (doubts[key].agreement if key in doubts else 1.0) for key, w in weights.items()) / total
    told = {f"{key}_doubt": _finite(doubts[key].error) for key in ("snr", "svdr")}
    return [Row(**{**row, **told}) for row in rows], agreement  # type: ignore[typeddict-item]


def _of_score(rows: Sequence[Row], *, key: str) -> Doubt:
    """SWCI is the SNR times a change that is known: its scatter is the SNR's, its spread is not."""
    source = "snr" if key == "swci" else key
    factors = [row["relative_change"] or 0.0 if key == "swci" else 1.0 for row in rows]
    values, thinner = (
        [factor * (row[name] or 0.0) for factor, row in zip(factors, rows, strict=True)]  # type: ignore[literal-required]
        for name in (source, f"{source}_thinner")
    )
    return doubt(values, thinner=thinner)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
