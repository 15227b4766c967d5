"""The random masks: the generator against plain integers, and that a mask is a function of key and position only."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.methods import Workspace
from worker.methods.counter import keep_mask, key_of, random_bits, random_words

MASK = (1 << 64) - 1


def splitmix(key: int, index: int) -> int:
    z = (key + (index + 1) * 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


@given(st.integers(0, MASK), st.integers(0, 2**40))
@settings(max_examples=50, deadline=None)
def test_it_is_splitmix64(key, start):
    words = random_words(key, start=start, size=5, work=Workspace())
    assert [word % 2**64 for word in words.tolist()] == [splitmix(key, start + i) for i in range(5)]


def test_the_known_first_outputs():
    """Of seed 1234567, as published with the reference implementation (prng.di.unimi.it/splitmix64.c)."""
    words = random_words(1234567, start=0, size=3, work=Workspace())
    assert [word % 2**64 for word in words.tolist()] == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(st.integers(0, 3000), st.integers(1, 500))
@settings(max_examples=50, deadline=None)
def test_any_part_can_be_made_alone(start, size):
    whole = random_bits(42, start=0, size=4000, work=Workspace()).clone()
    assert torch.equal(random_bits(42, start=start, size=size, work=Workspace()), whole[start : start + size])


@pytest.mark.parametrize("density", [0.0, 0.1, 0.53, 0.999, 1.0])
def test_the_share_kept_is_the_density(density):
    size = 1 << 20
    kept = -keep_mask(key_of(1, "w", "c"), start=0, size=size, density=density, work=Workspace()).sum().item() / size
    assert abs(kept - density) <= 5 * (density * (1 - density) / size) ** 0.5 + 2**-16


@pytest.mark.parametrize("density", [0.006, 1e-4, 1.2e-5])
def test_a_small_share_is_kept_too(density):
    size, parts = 1 << 20, 8
    kept = 0
    for part in range(parts):
        mask = keep_mask(key_of(1, "w", "c"), start=part * size, size=size, density=density, work=Workspace())
        assert set(mask.unique().tolist()) == {-1, 0}
        kept -= int(mask.sum())
    expected = density * size * parts
    assert abs(kept - expected) <= 5 * expected**0.5 + 0.004 * expected


def test_bits_are_uniform_and_neighbours_independent():
    bits = random_bits(7, start=0, size=1 << 20, work=Workspace()).long()
    counts = torch.bincount(bits >> 7, minlength=256).double()
    assert ((counts - 4096) ** 2 / 4096).sum() < 350  # chi squared of 255 degrees: p < 1e-4 beyond
    for lag in (1, 2, 3, 4, 5):
        both = ((bits[:-lag] < 16384) & (bits[lag:] < 16384)).double().mean()
        assert abs(both - 0.25) < 0.003


def test_keys_differ_by_each_of_their_parts():
    keys = {key_of(*parts) for parts in [(1, "a", "c"), (2, "a", "c"), (1, "b", "c"), (1, "a", "d"), ("1a", "", "c")]}
    assert len(keys) == 5
