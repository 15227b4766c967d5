"""The checksum of written files: the same however the bytes are cut, another for whatever a disk does to them."""

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.checkpoints.checksum import PAGE, Checksum

DATA = random.Random(1).randbytes(5 * PAGE + 123)


def checksum(data: bytes, cuts=()) -> int:
    found = Checksum()
    places = [0, *sorted(cuts), len(data)]
    for start, stop in pairwise(places):
        found.update(memoryview(data)[start:stop])
    return found.value


@given(st.lists(st.integers(0, len(DATA)), max_size=12))
@settings(max_examples=100, deadline=None)
def test_pieces_do_not_matter(cuts):
    assert checksum(DATA, cuts) == checksum(DATA)


@given(st.integers(0, len(DATA) * 8 - 1))
@settings(max_examples=200, deadline=None)
def test_every_flipped_bit_shows(place):
    flipped = bytearray(DATA)
    flipped[place // 8] ^= 1 << place % 8
    assert checksum(bytes(flipped)) != checksum(DATA)


@pytest.mark.parametrize("page", range(5))
def test_lost_torn_and_exchanged_pages_show(page):
    start = page * PAGE
    lost = DATA[:start] + bytes(PAGE) + DATA[start + PAGE :]
    torn = DATA[: start + 512] + bytes(PAGE - 512) + DATA[start + PAGE :]
    shorter = DATA[:start] + DATA[start + PAGE :]
    assert len({checksum(data) for data in (DATA, lost, torn, shorter)}) == 4
    if page:
        exchanged = DATA[start : start + PAGE] + DATA[PAGE:start] + DATA[:PAGE] + DATA[start + PAGE :]
        assert checksum(exchanged) != checksum(DATA)
