"""A part of what `make chaos` does in full: deaths at named points, on the first and on the second attempt."""

import pytest

from tests.chaos import points
from worker.crash import POINTS

HERE = ("merging.step", "publishing.recorded", "publishing.sent", "settled")


def test_the_matrix_covers_every_point_twice():
    cases = points.cases()
    assert len(POINTS) >= 25
    assert [case.point for case in cases] == [point for point in POINTS for _ in range(2)]
    assert len({case.target for case in cases}) == len(cases)
    assert all(case.point in case.deaths for case in cases)


@pytest.mark.slow
@pytest.mark.timeout(300)  # on a machine that is busy with much else
def test_a_death_at_a_named_point_costs_time_only(tmp_path):
    found = points.run(tmp_path, chosen=points.cases(HERE), workers=3, seconds=200)
    assert found["held"], found["wrong"]
    assert found["cases"] == 2 * len(HERE)
