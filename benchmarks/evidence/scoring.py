"""The scores of a pair that is in memory, by the service's own formulas."""

from typing import Any

from worker.scores import Row, SpectrumPair, blank_row, make_row, parts, squared_norms, wanted
from worker.spectra import singular_values

MODULES = ("q", "k", "v", "o", "gate", "up", "down")


def score(base: Any, adapted: Any) -> tuple[list[Row], list[Row]]:
    """Rows of the projections with scores, not yet ranked, and blank rows of everything else."""
    config, theirs = base.config.to_dict(), dict(adapted.named_parameters())
    rows, others = [], []
    for name, weight in base.named_parameters():
        for part in parts(name, shape=tuple(weight.shape), config=config):
            blank = blank_row(part, itemsize=4)
            if not wanted(name, ndim=weight.ndim, modules=MODULES):
                others.append(blank)
                continue
            one, two = part.cut(weight.data), part.cut(theirs[name].data)
            norm, _, delta = squared_norms(one, two)
            pair = SpectrumPair(
                base=singular_values(one), adapted=singular_values(two), shape=part.shape, precision="exact"
            )
            rows.append(make_row(
                blank, spectra=pair, base_norm=norm**0.5, delta_norm=delta**0.5, delta=None, estimator="mp_median",
                reference="base", variant="drop",
            ))  # fmt: skip
    return rows, others
