"""The storm of `make chaos` in its short form."""

import pytest

from tests.chaos import storm


@pytest.mark.slow
@pytest.mark.timeout(300)  # on a machine that is busy with much else
def test_a_short_storm(tmp_path):
    found = storm.run(tmp_path, jobs=5, workers=3, seed=7, seconds=120)
    assert found["held"], found["wrong"]
    assert found["strikes"]["kill_worker"] >= 3
    assert found["hub"]["struck"] > 0
