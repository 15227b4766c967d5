"""The fuzz runner's short form: a second of every target; `python -m tests.fuzz` is the long one."""

import pytest

from tests.fuzz.__main__ import run
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_but_typed_refusals_comes_out(target):
    outcomes, findings = run(seconds=1, seed=20_261, targets=[target])
    assert findings == []
    assert outcomes[f"{target}:ok"] > 0
    assert len(outcomes) > 1


def test_the_same_seed_gives_the_same_inputs():
    first = [run(seconds=0, seed=5, targets=list(TARGETS), case=case)[0] for case in range(30)]
    assert first == [run(seconds=0, seed=5, targets=list(TARGETS), case=case)[0] for case in range(30)]
