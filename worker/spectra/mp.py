"""The Marchenko-Pastur law of pure noise: its median and its upper edge.

For an n x m matrix of independent entries of variance s², the eigenvalues of W Wᵀ / (s² max(n, m)) follow the law with
β = min/max on [(1-√β)², (1+√β)²] (Marchenko & Pastur 1967). The median of the singular values therefore measures the
noise where most directions are noise (Gavish & Donoho, arXiv 1305.5870, section III.E).
"""

import math
from functools import lru_cache

from torch import Tensor

TOLERANCE = 1e-14


@lru_cache(maxsize=4096)
def mp_median(beta: float) -> float:
    """μ_β: the square root of the median of the Marchenko-Pastur law of aspect β in (0, 1].

    Unit: singular values divided by s·√max(n, m). Found by bisection of the distribution function in closed
    form, so the infinite density at zero for β = 1 does no harm: right to 1e-12 for β above 1e-3.
    """
    if not 0 < beta <= 1:
        raise ValueError(f"the aspect must be in (0, 1], not {beta}")
    low, high = 0.0, math.pi
    while high - low > TOLERANCE:
        middle = (low + high) / 2
        low, high = (middle, high) if _mass_below(middle, beta=beta) < 0.5 else (low, middle)
    return math.sqrt(_eigenvalue((low + high) / 2, beta=beta))


def noise_scale(values: Tensor, *, shape: tuple[int, ...]) -> float:
    """median/μ_β: the noise's standard deviation times √max(n, m). `values`: all min(n, m) of them."""
    return float(values.quantile(0.5)) / mp_median(min(shape) / max(shape))


def noise_edge(values: Tensor, *, shape: tuple[int, ...]) -> float:
    """`noise_scale` · (1 + √β): the largest singular value that pure noise of the measured size would have."""
    return noise_scale(values, shape=shape) * (1 + math.sqrt(min(shape) / max(shape)))


def _eigenvalue(angle: float, *, beta: float) -> float:
    """λ = 1 + β - 2√β·cos φ: runs over the law's support as φ runs from 0 to π."""
    return 1 + beta - 2 * math.sqrt(beta) * math.cos(angle)


def _mass_below(angle: float, *, beta: float) -> float:
    """The law's mass below λ(angle).

    With λ(φ) the density √((λ₊-λ)(λ-λ₋))/(2πβλ) dλ is 2 sin²φ/(πλ(φ)) dφ, and dividing sin²φ by λ(φ) leaves a
    constant, a cosine and 1/λ(φ), each with an elementary integral.
    """
    root = math.sqrt(beta)
    turn = math.atan2((1 + root) * math.sin(angle / 2), (1 - root) * math.cos(angle / 2))
    integral = (1 + beta) * angle / (4 * beta) + math.sin(angle) / (2 * root) - (1 - beta) * turn / (2 * beta)
    return 2 / math.pi * integral
