"""`policy: auto` through the running service: searched, judged, published, made again; a worker that dies searching."""

import json
import os
from pathlib import Path

import pytest
import torch

from tests.e2e.test_reproduce import reproduce
from tests.fixtures.models import make_checkpoint
from tests.fixtures.service import Service, start_service, stop_service
from tests.unit.test_search_stage import DOMAIN, GENERAL, trained

FILES = {
    "general.jsonl": GENERAL, "domain.jsonl": DOMAIN,
    **{f"{name}_cal.jsonl": [{"text": f"{one['text']} {one['text']}"} for one in items[:9]]
       for name, items in (("general", GENERAL), ("domain", DOMAIN))},
}  # fmt: skip
BUDGET = 14


@pytest.fixture(scope="module")
def auto_service(local_hub_server, tmp_path_factory):
    """A service whose worker dies when a job for the target `struck` has searched for a while."""
    user, token = local_hub_server.fresh_user()
    service = start_service(
        local_hub_server, tmp_path_factory.mktemp("auto"), account=(user, token),
        SPEAR_CRASH_AT=f"searching.step#7@1:{user}/struck",
    )  # fmt: skip
    yield service
    stop_service(service)


@pytest.fixture(scope="module")
def inputs(auto_service: Service, tmp_path_factory) -> tuple[str, str, str]:
    """A base that knows two sentences, its child that learned two others and forgot, and the tasks."""
    folder = tmp_path_factory.mktemp("auto-pair")
    start = make_checkpoint(folder / "start", seed=3, dtype=torch.float32, hidden=32)
    base = trained(folder / "base", start=start, texts=GENERAL, steps=40)
    adapted = trained(folder / "adapted", start=base, texts=DOMAIN, steps=30)
    hub, sets = auto_service.hub.api(auto_service.token), f"{auto_service.user}/auto-sets"
    hub.create_repo(sets, repo_type="dataset", private=True)
    for name, items in FILES.items():
        data = "".join(json.dumps(item) + "\n" for item in items).encode()
        hub.upload_file(path_or_fileobj=data, path_in_repo=name, repo_id=sets, repo_type="dataset")
    return auto_service.push("auto-base", base), auto_service.push("auto-adapted", adapted), sets


def searched(service: Service, inputs: tuple[str, str, str], target: str, **changes) -> dict:
    base, adapted, sets = inputs

    def task(name: str) -> dict:
        return {"name": name, "kind": "perplexity", "repo": sets, "path": f"{name}.jsonl"}

    evaluation = {
        "general": [task("general")], "domain": [task("domain")],
        "calibration": {"general": [task("general_cal")], "domain": [task("domain_cal")]},
    }  # fmt: skip
    method = {"policy": "auto", "auto": {"budget": BUDGET, "least": 0.8}}
    return service.recipe(base, adapted, target, method=method, evaluation=evaluation | changes)


@pytest.fixture(scope="module")
def published(auto_service: Service, inputs) -> dict:
    gate = {"min_retention": 0, "min_gain_kept": 0.2}
    job = auto_service.run(searched(auto_service, inputs, "auto-result", gate=gate), timeout=280)
    assert job["status"] == "succeeded", job["error"]
    return job


@pytest.mark.timeout(300)
def test_a_searched_merge_is_judged_beside_its_controls_and_published(auto_service, published, tmp_path):
    stages = [stage["name"] for stage in published["stages"]]
    assert stages.index("selecting") < stages.index("searching") < stages.index("merging")
    assert stages[-3:] == ["evaluating", "controls", "publishing"]
    with auto_service.client() as client:
        found = client.report(published["id"])["evaluation"]
    controls = [point for point in found["points"] if point["kind"] == "control" and point["on"] == "held_out"]
    assert {point["name"] for point in controls} == {
        "uniform", "random", "random_embedding", "relative_change", "dg_hard"
    }
    assert {point["on"] for point in found["points"]} == {"calibration", "held_out"}
    assert found["gate"]["passed"] is True
    assert found["search"]["spent"] <= found["search"]["budget"] == BUDGET
    assert {"embedding", "norm"} <= set(found["search"]["groups"])
    assert [one["chosen"] for one in found["search"]["choices"]] == [True]
    assert {one["kind"] for one in found["diagnosis"]} <= {"over_restored", "under_restored", "control_as_good"}
    assert found["prediction"]["tensors"] >= 5
    hub = auto_service.hub.api(auto_service.token)
    report = json.loads(Path(hub.hf_hub_download(
        published["result"]["repo"], "report.json", revision=published["result"]["commit"], cache_dir=tmp_path
    )).read_text())  # fmt: skip
    assert report["evaluation"] == found
    assert len(auto_service.commits_of(published)) == 1


@pytest.mark.timeout(300)
def test_what_was_searched_is_made_again_without_a_search(auto_service, published, tmp_path):
    found = reproduce(auto_service, tmp_path, published["result"]["repo"])
    assert found["equal"], found
    assert {"model.safetensors"} <= set(found["files"]) or any("safetensors" in name for name in found["files"])
    assert all(found["files"].values())


@pytest.mark.timeout(300)
def test_the_service_replays_what_was_searched(auto_service, published, tmp_path):
    target = f"{auto_service.user}/auto-scratch"
    found = reproduce(auto_service, tmp_path, published["result"]["repo"], "--target", target)
    assert found["equal"], found
    with auto_service.client() as client:
        stages = [stage["name"] for stage in client.get(found["again"])["stages"]]
    assert not {"scoring", "searching"} & set(stages)


@pytest.mark.timeout(300)
def test_a_worker_that_dies_while_it_searches_asks_nothing_twice(auto_service, inputs, published, tmp_path):
    """The second attempt comes to the strengths of the merge that nothing befell."""
    kept = tmp_path / "journal"

    def hold(job: dict) -> bool:
        """A second name for the journal, which outlives the job's directory."""
        journal = next(auto_service.home.rglob(f"{job['id']}/**/search.journal"), None)
        if journal and not kept.exists():
            os.link(journal, kept)
        return False

    with auto_service.client() as client:
        job = client.submit(searched(auto_service, inputs, "struck", controls=False))
        job = auto_service.wait(job["id"], timeout=280, until=hold)
        assert (job["status"], job["attempt"]) == ("succeeded", 2), job["error"]
        asked = [json.loads(line)["key"] for line in kept.read_text().splitlines() if line]
        assert len(asked) == len(set(asked)) > 7
        report, other = client.report(job["id"]), client.report(published["id"])
        assert report["evaluation"]["search"] == other["evaluation"]["search"]
    manifests = [_manifest(auto_service, one, tmp_path / one["id"]) for one in (job, published)]
    assert manifests[0]["decisions"] == manifests[1]["decisions"]
    assert len(auto_service.commits_of(job)) == 1


def _manifest(service: Service, job: dict, folder: Path) -> dict:
    path = service.hub.api(service.token).hf_hub_download(
        job["result"]["repo"], "merge_manifest.json", revision=job["result"]["commit"], cache_dir=folder
    )
    return json.loads(Path(path).read_text())
