"""An adapter as the expert of the main job, through the running service."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.fixtures.adapters import LINEAR, make_adapter
from tests.fixtures.service import Service
from worker.checkpoints.open import open_model


@pytest.fixture(scope="module")
def adapter(base_model, tmp_path_factory) -> Path:
    return make_adapter(base_model, tmp_path_factory.mktemp("adapter") / "lora", seed=4, target_modules=LINEAR)


@pytest.fixture(scope="module")
def repo(service_server: Service, adapter) -> str:
    return service_server.push("lora", adapter)


def download(service: Service, job: dict, into: Path) -> Path:
    service.hub.api(service.token).snapshot_download(
        job["result"]["repo"], revision=job["result"]["commit"], local_dir=into, cache_dir=into / "cache"
    )
    return into


def test_a_restored_model_is_made_of_a_base_and_an_adapter(service, pair, repo, base_model, adapter, tmp_path):
    job = service.run(service.recipe(pair[0], repo, "from-adapter", method={"policy": "balanced"}))
    assert job["status"] == "succeeded", job["error"]
    folder = download(service, job, tmp_path)
    manifest = json.loads((folder / "merge_manifest.json").read_text())
    assert manifest["inputs"][1]["adapter"] is True
    assert {d["operation"] for d in manifest["decisions"]} <= {"slerp", "lerp", "copied_adapted"}
    assert job["result"]["selected"] == sum("t" in d for d in manifest["decisions"]) > 0
    merged = load_file(folder / "model.safetensors")
    with open_model(adapter, base=base_model) as model:
        for decision in manifest["decisions"]:
            same = torch.equal(merged[decision["name"]], model.read(decision["name"]))
            assert same == ("t" not in decision), decision
    assert f"{repo} is a LoRA adapter" in "".join((folder / "README.md").read_text().replace("\\", ""))


def test_its_spectra_are_cached(service, pair, repo):
    first = service.run(service.recipe(pair[0], repo, "cached-1"))
    assert first["status"] == "succeeded", first["error"]
    second = service.run(service.recipe(pair[0], repo, "cached-2", method={"policy": "aggressive"}))
    with service.client() as client:
        costs = client.report(second["id"])["costs"]
    assert (costs["spectra_computed"], costs["spectra_cached"]) == (0, 2 * 2 * 7)


def test_a_plan_says_that_it_is_an_adapter(service, pair, repo):
    with service.client() as client:
        plan = client.plan(service.recipe(pair[0], repo, "planned"))
    assert any(f"{repo} is a LoRA adapter" in words for words in plan["warnings"])
