"""Eigenvalues in place, alone and many at once, and the same on a CUDA device where there is one."""

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info
from torch import Tensor

from worker.spectra import many_values, singular_values
from worker.spectra.eigen import eigenvalues

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def symmetric(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    factor = torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (factor @ factor.transpose(-1, -2)).to(dtype)


@pytest.mark.parametrize("size", [1, 2, 3, 33, 200])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_they_are_those_of_the_lower_triangle(size: int, dtype: torch.dtype, tolerance: float) -> None:
    matrix = symmetric(size, size, dtype=dtype)
    true = np.linalg.eigvalsh(matrix.double().numpy())[::-1]
    only_lower = matrix.tril() + torch.full_like(matrix, float("nan")).triu(1)
    found = eigenvalues(only_lower)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), true, atol=tolerance * true[0])


def test_many_are_each_as_alone() -> None:
    every = symmetric(3, 40, 40, dtype=torch.float32)
    alone = torch.stack([eigenvalues(each.clone()) for each in every])
    assert torch.equal(eigenvalues(every), alone)


def test_no_second_matrix_is_made() -> None:
    matrix = symmetric(64, 64)
    before = matrix.clone()
    eigenvalues(matrix)
    assert not torch.equal(matrix, before)


def test_the_threads_of_the_library_are_put_back() -> None:
    before = [(pool["filepath"], pool["num_threads"]) for pool in threadpool_info()]
    eigenvalues(symmetric(16, 16))
    assert [(pool["filepath"], pool["num_threads"]) for pool in threadpool_info()] == before


@pytest.mark.parametrize("precision", ["exact", "single"])
@pytest.mark.parametrize("shape", [(30, 30), (20, 70), (70, 20), (3, 0)])
def test_matrices_of_one_shape_in_one_call_have_the_values_they_have_alone(
    shape: tuple[int, int], precision: str
) -> None:
    generator = torch.Generator().manual_seed(1)
    every = [torch.randn(shape, generator=generator).bfloat16() * 10.0**i for i in range(3)]
    alone = [singular_values(each, precision=precision) for each in every]  # type: ignore[arg-type]
    together = many_values(list(every), precision=precision)  # type: ignore[arg-type]
    assert all(torch.equal(one, two) for one, two in zip(alone, together, strict=True))


def test_matrices_of_several_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="2 different shapes"):
        many_values([torch.ones(2, 3), torch.ones(3, 2)])


@pytest.mark.gpu
@gpu
@pytest.mark.parametrize("precision", ["exact", "single"])
def test_cuda_gives_the_values_of_the_cpu(precision: str) -> None:
    every = [torch.randn(96, 200, generator=torch.Generator().manual_seed(i)).bfloat16() for i in range(4)]
    here = many_values(list(every), precision=precision)  # type: ignore[arg-type]
    there = many_values([each.cuda() for each in every], precision=precision)  # type: ignore[arg-type]
    for one, two in zip(here, there, strict=True):
        assert not two.is_cuda
        np.testing.assert_allclose(two.numpy(), one.numpy(), rtol=1e-4)
