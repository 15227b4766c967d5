"""Products of bf16 pairs, and BLAS's products of a matrix with itself, against fp64."""

import os
import subprocess
import sys

import pytest
import torch

from worker import processor
from worker.spectra import singular_values, split_values
from worker.spectra.gram import DOUBLE, SINGLE, gram, has_pairs, in_pairs

NEEDS_PAIRS = pytest.mark.skipif(not has_pairs(), reason="this processor has no products of bf16 pairs")


def matrix(rows: int, columns: int, *, size: float = 1.0, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rows * columns)
    return (torch.randn(rows, columns, generator=generator) * size).to(dtype)


def product(tall: torch.Tensor) -> torch.Tensor:
    return (tall.double().T @ tall.double()).tril()


@NEEDS_PAIRS
@pytest.mark.parametrize("shape", [(1, 1), (2, 7), (3, 33), (255, 32), (256, 40), (257, 64), (700, 100)])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("chosen", [False, True])
def test_products_of_pairs_are_right_to_the_rounding_of_fp32_sums(shape, turned, chosen):
    from worker.spectra.pairs import gram_of_pairs  # where there is no numba it cannot be imported

    tall = matrix(*shape[::-1]).T if turned else matrix(*shape)
    columns = torch.randperm(shape[1], generator=torch.Generator().manual_seed(1))[: max(1, shape[1] // 2)]
    found = gram_of_pairs(tall, columns=columns if chosen else None).tril()
    true = product(tall[:, columns] if chosen else tall)
    assert found.is_contiguous()
    assert found.shape == true.shape
    assert float((found - true).abs().max()) <= 2e-6 * float(true.abs().max())


@NEEDS_PAIRS
def test_a_part_of_a_larger_matrix_is_read_where_it_lies():
    whole = matrix(300, 96)
    part = whole[10:290, 32:64]
    from worker.spectra.pairs import gram_of_pairs

    assert torch.equal(gram_of_pairs(part), gram_of_pairs(part.contiguous()))


@NEEDS_PAIRS
def test_pairs_are_for_large_bf16_matrices_of_middling_entries():
    assert in_pairs(matrix(512, 600), scale=0.5)
    assert not in_pairs(matrix(511, 600), scale=0.5)
    assert not in_pairs(matrix(512, 600, dtype=torch.float16), scale=0.5)
    assert not in_pairs(matrix(512, 600), scale=2.0**-30)
    assert not in_pairs(matrix(512, 600), scale=2.0**30)


@pytest.mark.parametrize("size", [1e-30, 1e-9, 0.02, 1e4, 1e18])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_values_are_right_at_any_size_of_the_entries(size, dtype):
    stored = matrix(640, 512, size=size, dtype=dtype)
    true = torch.linalg.svdvals(stored.double())
    values = singular_values(stored, precision="single")
    assert torch.allclose(values[:500], true[:500], rtol=2e-4, atol=0)


@pytest.mark.parametrize("grade", [SINGLE, DOUBLE])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 1), (40, 3), (3, 40), (600, 90), (90, 600)])
def test_blas_writes_the_lower_triangle_of_the_product(grade, dtype, shape):
    stored = matrix(*shape, dtype=dtype)
    found, scale = gram(stored, grade=grade)
    true = product(stored if shape[0] >= shape[1] else stored.T)
    precision = 1e-6 if grade is SINGLE else 1e-14
    assert float((found.tril().double() * scale**2 - true).abs().max()) <= 3 * precision * float(true.abs().max())


def test_estimates_from_pairs_are_those_from_fp32_products():
    stored = matrix(1200, 1030)
    pairs, plain = split_values(stored), split_values(stored.float())
    for one, other in ((pairs.values, plain.values), (pairs.halves, plain.halves)):
        assert torch.allclose(one[: len(one) // 2], other[: len(one) // 2], rtol=1e-5, atol=0)


def test_not_a_number_is_refused_before_any_product():
    stored = matrix(600, 600)
    stored[3, 5] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        singular_values(stored, precision="single")


def test_blas_is_told_of_a_processor_that_it_does_not_know(monkeypatch):
    monkeypatch.setattr(processor, "features", lambda: processor.WIDE | {"sse"})
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    processor.name_kernels()
    assert os.environ["OPENBLAS_CORETYPE"] == "SkylakeX"
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Zen")  # of somebody's shell: it must not show in the digits
    processor.name_kernels()
    assert os.environ["OPENBLAS_CORETYPE"] == "SkylakeX"


def test_blas_is_told_nothing_of_a_processor_without_wide_registers(monkeypatch):
    monkeypatch.setattr(processor, "features", lambda: frozenset({"avx2"}))
    monkeypatch.setenv("OPENBLAS_CORETYPE", "SkylakeX")
    processor.name_kernels()
    assert "OPENBLAS_CORETYPE" not in os.environ


def test_the_flags_of_the_processor_are_read_before_any_library():
    code = "import sys, worker.processor as p; print('numpy' in sys.modules, 'fpu' in p.features() or not p.features())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
