"""The cache's format keeps every bit and trusts nothing."""

import json
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from worker.spectra import ALGORITHM, SpectrumKey, from_record, pack, to_record, unpack

KEY = SpectrumKey(digest="sha256:" + "ab" * 32, tensor="model.layers.0.self_attn.q_proj.weight")


@given(st.lists(st.floats(min_value=0, allow_nan=False, allow_infinity=False), max_size=50))
def test_a_record_brings_back_every_bit(numbers: list[float]) -> None:
    values = torch.tensor(sorted(numbers, reverse=True), dtype=torch.float64)
    key, back = from_record(json.loads(json.dumps(to_record(KEY, values))))
    assert key == KEY
    assert torch.equal(back, values)


def test_the_key_names_algorithm_precision_and_device() -> None:
    record = to_record(KEY, torch.tensor([2.0, 1.0], dtype=torch.float64))
    assert {name: record[name] for name in ("algorithm", "precision", "device_class", "count")} == {
        "algorithm": ALGORITHM, "precision": "exact", "device_class": "cpu", "count": 2,
    }  # fmt: skip


def test_a_spectrum_takes_at_most_eight_bytes_a_value() -> None:
    values = torch.rand(4096, generator=torch.Generator().manual_seed(0), dtype=torch.float64).sort(descending=True)
    assert len(pack(values.values)) < 8 * 4096 + 64


@pytest.mark.parametrize(
    "change",
    [
        {"count": 3}, {"count": 1}, {"count": 10**9}, {"count": -1}, {"count": "x"}, {"data": "!!"}, {"data": "AAAA"},
        {"data": None}, {"digest": ...},
    ],
)  # fmt: skip
def test_a_damaged_record_is_refused(change: dict[str, Any]) -> None:
    record = {**to_record(KEY, torch.tensor([2.0, 1.0], dtype=torch.float64)), **change}
    with pytest.raises(ValueError, match="damaged"):
        from_record({name: value for name, value in record.items() if value is not ...})


@pytest.mark.parametrize("numbers", [[1.0, 2.0], [float("nan")], [float("inf")], [-1.0]])
def test_values_that_are_no_spectrum_are_refused(numbers: list[float]) -> None:
    with pytest.raises(ValueError, match="damaged"):
        unpack(pack(torch.tensor(numbers, dtype=torch.float64)), count=len(numbers))
