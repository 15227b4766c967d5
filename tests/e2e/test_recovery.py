"""Workers that die, jobs that are cancelled: the job ends in the right state, with at most one commit."""


import pytest

from tests.fixtures.service import start_service, stop_service

POINTS = (
    "resolving.begun", "downloading.begun", "scoring.begun", "merging.begun", "verifying.begun", "publishing.begun",
    "publishing.recorded", "publishing.committed",
)  # fmt: skip


@pytest.mark.parametrize("point", POINTS)
def test_a_worker_killed_in_any_stage_costs_time_only(point, local_hub, base_model, adapted_model, tmp_path):
    service = start_service(local_hub, tmp_path, SPEAR_CRASH_AT=f"{point}@1")
    try:
        pair = service.push("base", base_model), service.push("adapted", adapted_model)
        job = service.run(service.recipe(*pair, "restored"))
        assert (job["status"], job["attempt"]) == ("succeeded", 2), job["error"]
        assert service.commits_of(job) == [job["result"]["commit"]]
    finally:
        stop_service(service)
