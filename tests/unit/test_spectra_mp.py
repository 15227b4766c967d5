"""The Marchenko-Pastur law against numerical integration and against noise itself."""

import math

import pytest
import torch
from scipy.integrate import quad

from worker.spectra import mp_median, noise_edge, noise_scale, singular_values


def mass_below(eigenvalue: float, *, beta: float) -> float:
    """The law's distribution function by adaptive quadrature, the root singularity at the lower end taken away."""
    low, high = (1 - math.sqrt(beta)) ** 2, (1 + math.sqrt(beta)) ** 2

    def density(x: float) -> float:
        return math.sqrt(max(0.0, (high - x) * (x - low))) / (2 * math.pi * beta * x) if x > 0 else 0.0

    return float(quad(lambda u: density(low + u * u) * 2 * u, 0, math.sqrt(eigenvalue - low), limit=500)[0])


@pytest.mark.parametrize("beta", [1.0, 0.9999, 0.75, 0.5, 4096 / 14336, 0.25, 0.05, 1e-3])
def test_half_of_the_law_lies_below_its_median(beta: float) -> None:
    assert mass_below(mp_median(beta) ** 2, beta=beta) == pytest.approx(0.5, abs=1e-9)


@pytest.mark.parametrize(("beta", "quotient"), [(1.0, 2.8584), (0.5, 2.1712), (4096 / 14336, 1.8866), (0.25, 1.8369)])
def test_the_median_agrees_with_the_published_thresholds(beta: float, quotient: float) -> None:
    root = math.sqrt(beta * beta + 14 * beta + 1)
    omega = math.sqrt(2 * (beta + 1) + 8 * beta / ((beta + 1) + root))  # Gavish & Donoho, arXiv 1305.5870, eq. 11
    assert omega / mp_median(beta) == pytest.approx(quotient, abs=1e-4)


@pytest.mark.parametrize("beta", [0.0, -1.0, 1.5])
def test_an_aspect_outside_its_range_is_refused(beta: float) -> None:
    with pytest.raises(ValueError, match="aspect"):
        mp_median(beta)


@pytest.mark.parametrize("shape", [(400, 400), (300, 600), (200, 800), (100, 700), (700, 100)])
def test_the_scale_and_the_edge_of_pure_noise(shape: tuple[int, int]) -> None:
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(3)) * 0.3
    values = singular_values(noise)
    assert noise_scale(values, shape=shape) == pytest.approx(0.3 * math.sqrt(max(shape)), rel=0.02)
    assert noise_edge(values, shape=shape) == pytest.approx(float(values[0]), rel=0.05)
