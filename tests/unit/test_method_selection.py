"""The exact k-th magnitude, and which of its equals are kept, against a stable sort."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.methods import NotFiniteError, Workspace, bracket
from worker.methods.magnitude import Selection, Trim, sample_spans


def expected(values: torch.Tensor, keep: int) -> torch.Tensor:
    order = torch.argsort(values.abs(), descending=True, stable=True)
    kept = torch.zeros_like(values)
    kept[order[:keep]] = values[order[:keep]]
    return kept


def trimmed(values: torch.Tensor, keep: int, *, chunk: int = 1000, sample: torch.Tensor | None = None) -> torch.Tensor:
    """As the merge does it: sample, surveys, then the trim."""
    selection = Selection(keep, elements=len(values), work=Workspace())
    for start, stop in sample_spans(len(values)):
        selection.probe(values[start:stop] if sample is None else sample)
    select(selection, [values[at : at + chunk] for at in range(0, len(values), chunk)])
    return kept_by(selection, values, chunk=chunk)


def kept_by(selection: Selection, values: torch.Tensor, *, chunk: int = 1000) -> torch.Tensor:
    trim = Trim(selection, Workspace())
    result = values.clone()
    for at in range(0, len(values), chunk):
        trim(result[at : at + chunk], at)
    return result


def select(selection: Selection, chunks: list[torch.Tensor]) -> int:
    """Surveys until it is found, and says how many there were."""
    selection.guess()
    for number in range(1, 9):
        for part in chunks:
            selection.check(part)
        selection.conclude_check()
        if selection.found:
            return number
    raise AssertionError("never found")


def grid(size: int, seed: int, step: float) -> torch.Tensor:
    """Values on a coarse grid, as differences of bf16 weights are: many equal magnitudes."""
    return (torch.randn(size, generator=torch.Generator().manual_seed(seed)) / step).round() * step * 0.01


@given(st.integers(1, 5000), st.integers(0, 2**31), st.floats(0, 1), st.sampled_from([1e-6, 0.05, 0.5]))
@settings(max_examples=60, deadline=None)
def test_it_keeps_what_a_stable_sort_keeps(size, seed, density, step):
    values = grid(size, seed, step)
    keep = max(1, int(density * size))
    if keep < size:
        assert torch.equal(trimmed(values, keep), expected(values, keep))


@pytest.mark.parametrize("keep", [1, 2, 777, 29_999])
@pytest.mark.parametrize("sample", ["far", "constant"])
def test_a_sample_that_misleads_costs_time_only(keep, sample):
    values = torch.randn(30_000, generator=torch.Generator().manual_seed(keep))
    wrong = torch.full((500,), 1e-3) if sample == "constant" else torch.rand(500) * 1e-3
    assert torch.equal(trimmed(values, keep, sample=wrong), expected(values, keep))


def test_a_large_stream_is_sampled_in_parts():
    values = grid(1_000_003, 5, 0.2)
    spans = sample_spans(len(values))
    assert sum(stop - start for start, stop in spans) < 2**17
    assert torch.equal(trimmed(values, 312_345, chunk=131_072), expected(values, 312_345))


def test_all_equal_magnitudes_keep_the_first():
    values = torch.tensor([0.5, -0.5, 0.5, -0.5, 0.5])
    assert torch.equal(trimmed(values, 3, chunk=2), torch.tensor([0.5, -0.5, 0.5, 0, 0]))
    assert torch.equal(trimmed(torch.zeros(5), 3), torch.zeros(5))


@pytest.mark.parametrize("step", [1e-6, 0.05])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_one_survey_finds_what_was_sampled_fairly(step, share):
    values = grid(500_000, 11, step)
    selection = Selection(int(share * len(values)), elements=len(values), work=Workspace())
    for start, stop in sample_spans(len(values)):
        selection.probe(values[start:stop])
    assert select(selection, list(values.split(100_000))) == 1


@pytest.mark.parametrize("shift", [-0.04, 0.04])
def test_a_sample_that_misleads_a_little_costs_one_survey_of_a_narrow_bracket(shift):
    values = torch.randn(400_000, generator=torch.Generator().manual_seed(2))
    keep = 150_000
    selection = Selection(keep, elements=len(values), work=Workspace())
    for start, stop in sample_spans(len(values)):
        selection.probe(values[start:stop] * (1 + shift))
    collected = []

    def noted(bracket, found, add=bracket.Bracket.add):
        collected.append(len(found.between))
        add(bracket, found)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bracket.Bracket, "add", noted)
        assert select(selection, list(values.split(100_000))) == 2
    assert sum(collected) < 0.15 * len(values)
    assert selection.threshold == values.abs().sort(descending=True).values[keep - 1].item()


def test_what_repeats_is_counted_and_not_kept():
    values = grid(400_000, 9, 0.5)
    selection = Selection(200_000, elements=len(values), work=Workspace())
    for start, stop in sample_spans(len(values)):
        selection.probe(values[start:stop])
    selection.guess()
    for part in values.split(100_000):
        selection.check(part)
    found = selection.bracket
    assert found.within > 30_000
    assert found.between == 0
    selection.conclude_check()
    assert torch.equal(kept_by(selection, values), expected(values, 200_000))


def test_spans_see_every_column():
    """Where spans begin must not repeat with the length of a row."""
    spans = sample_spans(1 << 26)
    assert len({start % 2048 // 256 for start, _ in spans}) == 8
    assert all(0 <= start < stop <= 1 << 26 for start, stop in spans)
    assert all(one[1] <= other[0] for one, other in pairwise(spans))


def test_magnitudes_of_every_order_are_found():
    values = torch.exp(torch.linspace(-80, 80, 200_001))[torch.randperm(200_001, generator=torch.manual_seed(3))]
    assert torch.equal(trimmed(values, 123_456, chunk=50_000), expected(values, 123_456))


def test_a_stream_is_counted_without_a_sample():
    values = grid(20_000, 4, 0.05)
    selection = Selection(777, elements=len(values), work=Workspace())
    for lower in (False, True):
        for part in values.split(3000):
            selection.count(part, lower=lower)
        selection.conclude_count(lower=lower)
    assert selection.threshold == values.abs().sort(descending=True).values[776].item()


def test_nan_and_infinity_are_noticed():
    for bad in (float("nan"), float("inf"), -float("inf")):
        values = grid(200_000, 6, 0.05)
        values[150_001] = bad
        with pytest.raises(NotFiniteError):
            trimmed(values, 1000)


@pytest.mark.parametrize("step", [1e-6, 0.05])
def test_a_bracket_that_holds_too_much_is_counted_in_bins(monkeypatch, step):
    monkeypatch.setattr(bracket, "PENDING", 50)
    monkeypatch.setattr(bracket, "BINS", 1 << 8)
    values = grid(100_000, 8, step)
    assert torch.equal(trimmed(values, 40_000, chunk=7000), expected(values, 40_000))
