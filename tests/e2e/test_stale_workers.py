"""A few rounds of what `make chaos` does fifty times: a paused worker wakes up when its lease is lost."""

import pytest

from tests.chaos import stale


@pytest.mark.slow
@pytest.mark.timeout(300)  # on a machine that is busy with much else
def test_a_worker_that_wakes_up_late_writes_nothing(tmp_path):
    found = stale.run(tmp_path, rounds=3, seed=7)
    assert found["held"], found["wrong"]
    assert found["stale writes accepted"] == 0
    assert found["taken over"] + found["paused while"].get("too late", 0) == 3
