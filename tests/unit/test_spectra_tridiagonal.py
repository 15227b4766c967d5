"""Eigenvalues of tridiagonal matrices by bisection, beside LAPACK's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import eigvalsh_tridiagonal, lapack

from worker.spectra.eigen import TOLERANCE
from worker.spectra.tridiagonal import tridiagonal_eigenvalues

NUMBERS = st.floats(-1e6, 1e6, allow_subnormal=False)


@settings(deadline=None, max_examples=60)
@given(st.data(), st.integers(1, 70))
def test_they_are_lapacks(data: st.DataObject, size: int) -> None:
    diagonal = np.array(data.draw(st.lists(NUMBERS, min_size=size, max_size=size)))
    beside = np.array(data.draw(st.lists(NUMBERS, min_size=size - 1, max_size=size - 1)))
    found = tridiagonal_eigenvalues(diagonal, beside, tolerance=1e-15)
    true = eigvalsh_tridiagonal(diagonal, beside) if size > 1 else diagonal
    norm = max(np.abs(true).max(), 1e-300)
    assert (np.diff(found) >= 0).all()
    assert np.abs(found - true).max() <= 2e-14 * norm


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("size", "deficient"), [(512, 0), (700, 300), (1024, 1)])
def test_those_of_gram_matrices_are_within_their_tolerance(dtype: type, size: int, deficient: int) -> None:
    rng = np.random.default_rng(size)
    tall = rng.standard_normal((2 * size, size))
    tall[:, 0] *= 60  # one direction that dwarfs all others
    tall[:, size - deficient :] = tall[:, :deficient]
    reduce = lapack.ssytrd if dtype is np.float32 else lapack.dsytrd
    _, diagonal, beside, _, _ = reduce((tall.T @ tall).astype(dtype))
    numbers = diagonal.astype(np.float64), beside.astype(np.float64)
    true, _ = lapack.dsterf(*numbers)
    tolerance = TOLERANCE[np.dtype(dtype)]
    found = tridiagonal_eigenvalues(*numbers, tolerance=tolerance)
    assert np.abs(found - true).max() <= (tolerance + 4e-15) * true[-1]


def test_zeros_equal_values_and_matrices_that_fall_apart() -> None:
    assert (tridiagonal_eigenvalues(np.zeros(40), np.zeros(39), tolerance=1e-15) == 0).all()
    equal = tridiagonal_eigenvalues(np.full(100, 3.0), np.zeros(99), tolerance=1e-15)
    assert equal == pytest.approx(3.0, rel=1e-14)
    parts = np.array([1e-3, 5.0, 5.0, -2.0] * 20)
    found = tridiagonal_eigenvalues(parts, np.zeros(79), tolerance=1e-15)
    assert found == pytest.approx(np.sort(parts), rel=1e-11)


def test_the_same_twice() -> None:
    rng = np.random.default_rng(0)
    numbers = rng.standard_normal(600), rng.standard_normal(599)
    one, two = (tridiagonal_eigenvalues(*numbers, tolerance=1e-13) for _ in range(2))
    assert np.array_equal(one, two)
