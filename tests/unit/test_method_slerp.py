"""SLERP against an independent fp64 computation, and at its edges."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.methods import Chunk, Spec, Workspace, load_all


def slerp(base: torch.Tensor, expert: torch.Tensor, t: float, *, chunk: int = 1000, dtype=None):
    """The method over chunks, as the merge runs it."""
    work = Workspace()
    method = load_all()["slerp"](Spec("w", tuple(base.shape), {"t": t}, ({},)), work)
    out = torch.empty(base.numel(), dtype=dtype or expert.dtype)
    x, y = base.flatten(), expert.flatten()
    chunks = [Chunk(i, min(i + chunk, len(x)), x[i : i + chunk], (y[i : i + chunk],)) for i in range(0, len(x), chunk)]
    for turn in range(method.surveys):
        method.turn = turn
        for part in chunks:
            method.survey(part)
        method.conclude()
    for part in chunks:
        method.merge(part, out[part.start : part.stop])
    return out.reshape(base.shape), method.operation


def reference(base: torch.Tensor, expert: torch.Tensor, t: float) -> torch.Tensor:
    x, y = base.double(), expert.double()
    cosine = ((x * y).sum() / (x.norm() * y.norm())).item()
    if abs(cosine) > 0.9995:
        return (1 - t) * x + t * y
    theta = math.acos(cosine)
    return (math.sin((1 - t) * theta) * x + math.sin(t * theta) * y) / math.sin(theta)


def pair(seed: int, delta: float, dtype: torch.dtype, shape=(61, 83)):
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(shape, generator=generator)
    return base.to(dtype), (base + delta * torch.randn(shape, generator=generator)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("delta", [0.001, 0.05, 0.5, 5.0])
@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_it_equals_fp64_to_one_rounding(dtype, delta, t):
    base, expert = pair(3, delta, dtype)
    merged, operation = slerp(base, expert, t)
    exact = reference(base, expert, t)
    gap = (merged.double() - exact).abs()
    assert (gap <= (exact.abs() * torch.finfo(dtype).eps / 2 * 1.01 + 4e-7 * exact.abs().max())).all()
    assert operation == ("lerp" if delta == 0.001 else "slerp")


@given(st.integers(0, 2**31), st.sampled_from([0.0, 1.0]), st.sampled_from([torch.bfloat16, torch.float32]))
@settings(max_examples=20, deadline=None)
def test_the_ends_are_the_models_themselves(seed, t, dtype):
    base, expert = pair(seed, 0.3, dtype)
    assert torch.equal(slerp(base, expert, t)[0], expert if t else base)


@given(st.integers(0, 2**31), st.floats(0.01, 0.99))
@settings(max_examples=20, deadline=None)
def test_it_is_symmetric(seed, t):
    base, expert = pair(seed, 0.5, torch.float32)
    torch.testing.assert_close(slerp(base, expert, t)[0], slerp(expert, base, 1 - t)[0], rtol=1e-6, atol=1e-6)


def test_the_chunks_do_not_matter():
    base, expert = pair(5, 0.5, torch.bfloat16)
    assert torch.equal(slerp(base, expert, 0.3, chunk=7)[0], slerp(base, expert, 0.3, chunk=10**6)[0])


def test_zero_tensors_are_interpolated_linearly():
    base, expert = torch.zeros(10), torch.ones(10)
    merged, operation = slerp(base, expert, 0.25)
    assert torch.equal(merged, torch.full((10,), 0.25))
    assert operation == "lerp_zero_norm"
    assert torch.equal(slerp(base, base, 0.25)[0], base)


def test_opposite_tensors_fall_back_to_lerp():
    base = torch.ones(10)
    assert slerp(base, -base, 0.25) == (pytest.approx(torch.full((10,), 0.5)), "lerp")


def test_nan_is_not_hidden():
    base, expert = pair(7, 0.3, torch.float32)
    base[3, 3] = math.nan
    assert slerp(base, expert, 0.5)[0].isnan().any()
