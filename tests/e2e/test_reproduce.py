"""`spear reproduce`: a published merge made again, here and by the service; what it says of a changed byte."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.fixtures.models import make_checkpoint
from tests.fixtures.service import Service

GRADED = {"name": "spear", "policy": "aggressive", "t": 0.4, "t_top": 0.6}


def reproduce(service: Service, home: Path, *words: str, expected: int = 0) -> dict:
    """The command's JSON; what a user would have set is set, the data directory is one of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SPEAR_")}
    home.mkdir(exist_ok=True)
    (home / "token").write_text(service.token)
    env = kept | {
        "SPEAR_HUB_ENDPOINT": service.hub.endpoint, "SPEAR_HUB_TOKEN_FILE": str(home / "token"),
        "SPEAR_DATA_DIR": str(home / "data"), "SPEAR_API_URL": service.url, "SPEAR_API_KEY": service.key,
    }  # fmt: skip
    run = subprocess.run(
        [sys.executable, "-m", "app.cli", "reproduce", *words, "--json"], env=env, capture_output=True, text=True,
        timeout=150, check=False,
    )  # fmt: skip
    assert run.returncode == expected, run.stderr[-3000:]
    return json.loads(run.stdout) if run.stdout else {"stderr": run.stderr}


def flipped(path: Path, *, at: int = -1) -> None:
    """The file with one byte changed, as a new file: others may have links to the old one."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.unlink()
    path.write_bytes(content)


@pytest.fixture(scope="module")
def models(service_server: Service, tmp_path_factory) -> tuple[str, str, Path]:
    folder = tmp_path_factory.mktemp("reproduced")
    base = make_checkpoint(folder / "base", seed=51)
    adapted = make_checkpoint(folder / "adapted", seed=52, like=base, max_shard_size="10MB")
    return service_server.push("again-base", base), service_server.push("again-adapted", adapted), adapted


@pytest.fixture(scope="module")
def merged(service_server: Service, models) -> dict:
    base, adapted, _ = models
    job = service_server.run(service_server.recipe(base, adapted, "again-result", method=GRADED))
    assert job["status"] == "succeeded", job["error"]
    return job


def test_a_published_merge_comes_out_again_on_this_machine(service, merged, tmp_path):
    found = reproduce(service, tmp_path, merged["result"]["repo"])
    assert found["equal"], found
    assert found["job_id"] == merged["id"]
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= set(found["files"])
    assert all(found["files"].values())
    assert (found["differences"], found["engine"]) == ([], {})
    assert list((tmp_path / "data" / "reproduce").iterdir()) == []


def test_decisions_made_anew_are_the_same_and_what_was_made_is_kept_where_asked(service, merged, tmp_path):
    folder = tmp_path / "made"
    found = reproduce(service, tmp_path, merged["result"]["repo"], "--rescore", "--folder", str(folder))
    assert found["equal"], found
    published = Path(service.hub.api(service.token).hf_hub_download(
        merged["result"]["repo"], "merge_manifest.json", local_dir=tmp_path / "published"
    ))  # fmt: skip
    then, now = (json.loads(path.read_text()) for path in (published, folder / "output" / "merge_manifest.json"))
    same = ("job_id", "recipe", "inputs", "engine", "operations", "decisions")  # scores may differ in their last digits
    assert {key: then[key] for key in same} == {key: now[key] for key in same}


def test_a_method_that_chooses_nothing_comes_out_again(service, models, tmp_path):
    base, adapted, _ = models
    method = {"name": "dare_ties", "density": 0.5, "weight": 0.7}
    job = service.run(service.recipe(base, adapted, "again-dare", method=method))
    assert job["status"] == "succeeded", job["error"]
    assert reproduce(service, tmp_path, f"{job['result']['repo']}@{job['result']['commit']}")["equal"]


def test_the_service_makes_it_again_without_scoring(service, merged, tmp_path):
    target = f"{service.user}/again-scratch"
    found = reproduce(service, tmp_path, merged["result"]["repo"], "--target", target)
    assert found["equal"], found
    with service.client() as client:
        job, report = client.get(found["again"]), client.report(found["again"])
    assert "scoring" not in [stage["name"] for stage in job["stages"]]
    assert job["resolved"]["experts"] == [
        {**one, "revision": one["commit"]} for one in merged["resolved"]["experts"]
    ]
    assert report["recipe"]["replay"] == {"repo": merged["result"]["repo"], "revision": merged["result"]["commit"]}
    assert any("replayed" in warning for warning in report["warnings"])


def test_a_changed_byte_at_the_hub_is_named(service, models, merged, tmp_path):
    """The repository still lists the old digest: only reading tells."""
    _, adapted, folder = models
    content = (folder / "model.safetensors").read_bytes()
    stored = [path for path in service.hub.root.rglob("*") if path.is_file() and path.read_bytes() == content]
    saved = [shutil.copy(path, tmp_path / f"saved{number}") for number, path in enumerate(stored)]
    try:
        for path in stored:
            path.chmod(0o644)
            flipped(path)
        found = reproduce(service, tmp_path, merged["result"]["repo"], expected=1)
    finally:
        for path, copy in zip(stored, saved, strict=True):
            shutil.copy(copy, path)
    assert stored
    assert not found["equal"]
    [difference] = found["differences"]
    assert (difference["what"], difference["repo"], difference["name"]) == ("input", adapted, "model.safetensors")
    assert reproduce(service, tmp_path, merged["result"]["repo"])["equal"]


def test_a_changed_byte_in_a_cached_file_is_named(service, models, merged, tmp_path):
    _, adapted, _ = models
    assert reproduce(service, tmp_path, merged["result"]["repo"], "--cached")["equal"]
    blob = max((path for path in (tmp_path / "data" / "cache" / "blobs").glob("*/*")), key=lambda p: p.stat().st_size)
    flipped(blob)
    found = reproduce(service, tmp_path, merged["result"]["repo"], "--cached", expected=1)
    [difference] = found["differences"]
    assert (difference["what"], difference["name"]) == ("input", "model.safetensors")
    assert difference["repo"] == adapted


def test_a_mirror_with_another_byte_is_named_and_leads_to_the_tensor(service, models, merged, tmp_path):
    _, adapted, folder = models
    changed = shutil.copytree(folder, tmp_path / "changed")
    name = "model.layers.1.mlp.down_proj.weight"
    tensors = load_file(changed / "model.safetensors")
    tensors[name].view(-1)[7] += 0.25
    save_file(tensors, changed / "model.safetensors", metadata={"format": "pt"})
    mirror, same = service.push("again-mirror", changed), service.push("again-same", folder)
    place = merged["result"]["repo"]
    assert reproduce(service, tmp_path, place, "--input", f"{adapted}={same}")["equal"]
    found = reproduce(service, tmp_path, place, "--input", f"{adapted}={mirror}", expected=1)
    assert not found["ran"]
    assert [(one["what"], one["repo"], one["name"]) for one in found["differences"]] == [
        ("input", mirror, "model.safetensors")
    ]
    found = reproduce(service, tmp_path, place, "--input", f"{adapted}={mirror}", "--anyway", expected=1)
    assert found["ran"]
    told = [(one["what"], one["name"]) for one in found["differences"] if one["what"] != "input"]
    assert told == [("output", "model.safetensors"), ("tensor", name)]


def test_what_cannot_be_made_again_is_told(service, models, merged, tmp_path):
    base, *_ = models
    place = merged["result"]["repo"]
    for words, said in (
        ((base,), "no merge_manifest.json"),
        ((place, "--input", "org/none=org/mirror"), "is no input of this merge"),
        ((place, "--input", "org"), "is no mirror"),
        ((place, "--target", "a/b", "--anyway"), "leave out --target"),
        ((f"{place}@nothing",), "nothing"),
    ):
        assert said in reproduce(service, tmp_path, *words, expected=1)["stderr"]


def test_a_repository_whose_weights_were_replaced_is_told(service, merged, tmp_path):
    api, place = service.hub.api(service.token), merged["result"]["repo"]
    whole = Path(api.hf_hub_download(place, "model.safetensors", local_dir=tmp_path / "published"))
    tensors = load_file(whole)
    tensors["model.norm.weight"] = tensors["model.norm.weight"] + 1
    save_file(tensors, whole, metadata={"format": "pt"})
    api.create_branch(place, branch="replaced", revision=merged["result"]["commit"])
    api.upload_file(path_or_fileobj=whole, path_in_repo="model.safetensors", repo_id=place, revision="replaced")
    found = reproduce(service, tmp_path, f"{place}@replaced", expected=1)
    assert [one["what"] for one in found["differences"]] == ["published"]
    assert found["files"]["model.safetensors"] is True  # what the manifest promises can still be made
