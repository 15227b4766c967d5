"""The signal-to-noise ratio of a matrix, from its singular values."""

import math
from typing import Literal

from torch import Tensor

from worker.spectra.mp import noise_edge

Estimator = Literal["mp_median", "spectrum"]


def snr(values: Tensor, *, shape: tuple[int, ...], estimator: Estimator = "mp_median") -> float:
    """Σ of the singular values above the noise edge over Σ of those at or below it.

    `values`: all min(n, m) singular values, descending. `mp_median` takes the edge from the median by the
    Marchenko-Pastur law, has no unit and is 0 for pure noise. `spectrum` is the literal formula of
    cognitivecomputations/spectrum (`spectrum.py`): edge = IQR/1.349·(1+√β), and the ratio is divided by σ₁, so it
    has the unit 1/weight. Infinite where nothing lies below the edge; 0 for a zero matrix.
    """
    if not values.numel() or float(values[0]) <= 0:
        return 0.0
    edge = noise_edge(values, shape=shape) if estimator == "mp_median" else _quartile_edge(values, shape=shape)
    ratio = _ratio(values, edge=edge)
    return ratio / float(values[0]) if estimator == "spectrum" else ratio


def _ratio(values: Tensor, *, edge: float) -> float:
    signal = float(values[values > edge].sum())
    noise = float(values[values <= edge].sum())
    return signal / noise if noise > 0 else math.inf


def _quartile_edge(values: Tensor, *, shape: tuple[int, ...]) -> float:
    beta = min(shape) / max(shape)
    spread = float(values.quantile(0.75) - values.quantile(0.25))
    return spread / 1.349 * (1 + math.sqrt(beta))
