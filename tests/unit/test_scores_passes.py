"""Compiled passes over two matrices, beside torch in fp64; and memory that is used again."""

import pytest
import torch

from worker.scores import change, delta_shape, passes, sums
from worker.scores.change import compiled_passes, rounding_square, squared_norms
from worker.spectra.room import Room, taken

SHAPES = [(512, 512), (1536, 512), (512, 1531), (700, 601)]


def pair(shape: tuple[int, int], dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(shape[1])
    base = (0.02 * torch.randn(shape, generator=generator)).to(dtype)
    return base, (base.float() + 0.001 * torch.randn(shape, generator=generator)).to(dtype)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_sums_are_those_of_torch(shape: tuple[int, int], dtype: torch.dtype) -> None:
    base, adapted = pair(shape, dtype)
    assert compiled_passes(base, adapted) is passes
    found = sums(base, adapted)
    assert found[:3] == pytest.approx(squared_norms(base, adapted), rel=1e-11)
    assert found.rounding == pytest.approx(rounding_square(adapted), rel=1e-11)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("at", [0, 2047, 2048, 600 * 601 - 1])
def test_what_is_not_finite_shows_in_its_own_sum_only(bad: float, at: int) -> None:
    base, adapted = pair((600, 601), torch.bfloat16)
    adapted.view(-1)[at] = bad
    found = sums(base, adapted)
    assert torch.tensor(found.base).isfinite()
    assert not torch.tensor(found.adapted).isfinite()
    assert not torch.tensor(found.delta).isfinite()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_shape_of_a_change_is_that_of_torch(
    shape: tuple[int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, adapted = pair(shape, dtype)
    norm = squared_norms(base, adapted)[2] ** 0.5
    found = delta_shape(base, adapted, delta_norm=norm, room=Room())
    monkeypatch.setattr(change, "SMALLEST_OF_PASSES", 1 << 40)
    slow = delta_shape(base, adapted, delta_norm=norm)
    assert (found.rank, found.low_rank, found.top_energy) == (slow.rank, slow.low_rank, slow.top_energy)
    assert found.rounding_share == pytest.approx(slow.rounding_share, rel=1e-9)


def test_what_the_passes_do_not_know_is_left_to_torch() -> None:
    base, adapted = pair((512, 512), torch.float16)
    assert compiled_passes(base, adapted) is None
    assert sums(base, adapted)[:3] == squared_norms(base, adapted)
    base, adapted = pair((512, 512), torch.bfloat16)
    assert compiled_passes(base.T, adapted.T) is None
    assert compiled_passes(base, adapted.float()) is None
    assert compiled_passes(base[:8], adapted[:8]) is None


def test_a_room_gives_the_same_memory_again_and_grows() -> None:
    room = Room()
    first = room.take("square", (4, 4), torch.float32).fill_(3)
    assert room.take("square", (2, 2), torch.float64).data_ptr() == first.data_ptr()
    assert room.take("halves", (4, 4), torch.float32).data_ptr() != first.data_ptr()
    larger = room.take("square", (64, 64), torch.float64)
    assert (larger.shape, larger.is_contiguous()) == ((64, 64), True)
    assert (first == 3).all()  # whoever holds the smaller block still has it
    room.free("square")
    room.free("square")
    assert taken(None, "square", (3,), torch.float32, device=torch.device("cpu")).shape == (3,)
