"""The main job through the running service: from POST to a restored model on the Hub."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.fixtures.models import make_checkpoint, rewrite_tensor
from tests.fixtures.service import Service

SHARDED = {"output": {"max_shard_bytes": 1_000_000}}


@pytest.fixture(scope="session")
def large_pair(service_server: Service, tmp_path_factory) -> tuple[str, str, Path, Path]:
    """A pair of 1.9 MB: several shards in and out, tied heads."""
    folder = tmp_path_factory.mktemp("large")
    base = make_checkpoint(folder / "base", seed=5, hidden=192, layers=4, max_shard_size="400KB")
    adapted = make_checkpoint(folder / "adapted", seed=6, like=base, max_shard_size="500KB")
    return service_server.push("large-base", base), service_server.push("large-adapted", adapted), base, adapted


@pytest.fixture(scope="session")
def published(service_server: Service, large_pair, tmp_path_factory) -> tuple[dict, Path]:
    """One finished job and what it published."""
    base, adapted, *_ = large_pair
    job = service_server.run(service_server.recipe(base, adapted, "main-job", **SHARDED))
    assert job["status"] == "succeeded", job["error"]
    return job, download(service_server, job, tmp_path_factory.mktemp("published"))


def download(service: Service, job: dict, into: Path) -> Path:
    service.hub.api(service.token).snapshot_download(
        job["result"]["repo"], revision=job["result"]["commit"], local_dir=into, cache_dir=into / "cache"
    )
    return into


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    return found


def slerp(base: torch.Tensor, adapted: torch.Tensor, t: float) -> torch.Tensor:
    """Written down again from the formula, in fp64."""
    one, two = base.double().flatten(), adapted.double().flatten()
    cos = torch.dot(one, two) / (one.norm() * two.norm())
    if cos.abs() > 0.9995:
        mixed = (1 - t) * one + t * two
    else:
        angle = torch.arccos(cos)
        mixed = (torch.sin((1 - t) * angle) * one + torch.sin(t * angle) * two) / torch.sin(angle)
    return mixed.reshape(base.shape)


def test_the_published_model_loads_and_generates(published):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _, folder = published
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    words = tokenizer("The quick brown fox", return_tensors="pt")
    made = model.generate(**words, max_new_tokens=4, do_sample=False)
    assert made.shape[1] == words["input_ids"].shape[1] + 4
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert tokenizer.chat_template


def test_restored_tensors_are_slerp_to_one_rounding_and_the_rest_is_identical(published, large_pair):
    job, folder = published
    *_, base_path, adapted_path = large_pair
    base, adapted, merged = tensors_of(base_path), tensors_of(adapted_path), tensors_of(folder)
    decisions = {d["name"]: d for d in json.loads((folder / "merge_manifest.json").read_text())["decisions"]}
    assert set(merged) == set(adapted)
    restored = [name for name, decision in decisions.items() if "t" in decision]
    assert len(restored) == job["result"]["selected"] > 0
    for name, tensor in merged.items():
        assert tensor.dtype == torch.bfloat16
        if name in restored:
            exact = slerp(base[name], adapted[name], decisions[name]["t"])
            rounding = exact.abs() * 2.0**-8 + (base[name].double().abs() + adapted[name].double().abs()) * 2.0**-22
            assert torch.all((tensor.double() - exact).abs() <= rounding), name  # bf16, and fp32 on the way
            assert not torch.equal(tensor, adapted[name]), name
        else:
            assert torch.equal(tensor.view(torch.int16), adapted[name].view(torch.int16)), name


def test_what_is_published_beside_the_weights(published, large_pair):
    from huggingface_hub import ModelCard

    job, folder = published
    base, adapted, *_ = large_pair
    shards = sorted(path.name for path in folder.glob("*.safetensors"))
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert len(shards) > 1
    assert sorted(set(index["weight_map"].values())) == shards
    manifest = json.loads((folder / "merge_manifest.json").read_text())
    assert manifest["job_id"] == job["id"]
    assert [pinned["commit"] for pinned in manifest["inputs"]] == [
        job["resolved"]["base"]["commit"], job["resolved"]["experts"][0]["commit"],
    ]
    for path, entry in manifest["outputs"].items():
        content = (folder / path).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (entry["bytes"], entry["sha256"]), path
    card = ModelCard.load(folder / "README.md")
    assert card.data.base_model == [base, adapted]
    assert card.data.to_dict()["base_model_relation"] == "merge"
    assert (folder / "figures/scores.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    for name in ("config.json", "generation_config.json", "tokenizer.json", "chat_template.jinja", "report.json"):
        assert (folder / name).exists(), name


def test_the_job_tells_its_stages_events_scores_and_report(service, published):
    job, _ = published
    with service.client() as client:
        events, scores, report = list(client.events(job["id"])), client.scores(job["id"]), client.report(job["id"])
    assert [stage["name"] for stage in job["stages"]] == [
        "resolving", "downloading", "scoring", "selecting", "merging", "verifying", "publishing",
    ]
    assert all(stage["ended_at"] for stage in job["stages"])
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    merged = {event["data"]["name"] for event in events if event["type"] == "merging.step"}
    assert {row["name"] for row in scores} <= merged
    assert len(scores) == job["result"]["scored"] == 28
    shown = "name module_type layer shape snr swci svdr relative_change score selected t"
    assert set(shown.split()) <= set(scores[0])
    assert report["schema_version"] == 2
    assert report["costs"]["spectra_computed"] == 56
    if os.geteuid() == 0:  # others may lack the right to leave the network
        assert report["costs"]["network"] is False


def test_the_same_recipe_again_gives_the_same_digests_from_cached_spectra(service, large_pair, published):
    base, adapted, *_ = large_pair
    first, _ = published
    again = service.run(service.recipe(base, adapted, "main-job-again", **SHARDED))
    with service.client() as client:
        reports = [client.report(job["id"]) for job in (first, again)]
    files = [weights(service, job) for job in (first, again)]
    assert files[0] == files[1]
    assert reports[0]["scores"] == reports[1]["scores"]
    assert (reports[1]["costs"]["spectra_computed"], reports[1]["costs"]["spectra_cached"]) == (0, 56)


def weights(service: Service, job: dict) -> dict[str, str]:
    info = service.hub.api(service.token).model_info(
        job["result"]["repo"], revision=job["result"]["commit"], files_metadata=True
    )
    return {file.rfilename: file.lfs.sha256 for file in info.siblings if file.rfilename.endswith(".safetensors")}


def test_publishing_over_more_shards_leaves_none_of_them(service, pair):
    repo = f"{service.user}/stale"
    api = service.hub.api(service.token)
    api.create_repo(repo, private=True)
    for name in ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "pytorch_model.bin",
                 "model.safetensors.index.json", "adapter_config.json", "notes.txt"):  # fmt: skip
        api.upload_file(path_or_fileobj=name.encode(), path_in_repo=name, repo_id=repo)
    job = service.run(service.recipe(*pair, "stale"))
    files = api.list_repo_files(repo, revision=job["result"]["commit"])
    assert sorted(name for name in files if "model" in name) == ["model.safetensors"]
    assert "notes.txt" in files
    assert "adapter_config.json" not in files


def test_an_identical_result_still_makes_a_commit_that_bears_the_job(service, pair):
    jobs = [service.run(service.recipe(*pair, "twice")) for _ in range(2)]
    assert weights(service, jobs[0]) == weights(service, jobs[1])
    assert jobs[0]["result"]["commit"] != jobs[1]["result"]["commit"]
    assert [len(service.commits_of(job)) for job in jobs] == [1, 1]


def test_a_nan_in_the_weights_fails_at_scoring_and_names_the_tensor(service, pair, adapted_model, tmp_path):
    folder = shutil.copytree(adapted_model, tmp_path / "nan")
    name = "model.layers.1.mlp.up_proj.weight"

    def spoil(tensor: torch.Tensor) -> torch.Tensor:
        tensor[3, 3] = float("nan")
        return tensor

    rewrite_tensor(folder, name, spoil)
    job = service.run(service.recipe(pair[0], service.push("with-nan", folder), "from-nan"))
    assert (job["status"], job["error"]["code"], job["error"]["stage"]) == ("failed", "nonfinite_tensor", "scoring")
    assert job["error"]["names"]["tensor"] == name
    assert not service.hub.api(service.token).repo_exists(f"{service.user}/from-nan")
    assert not (service.home / "jobs" / job["id"]).exists()


def test_a_corrupt_shard_fails_with_its_digests(service, base_model, tmp_path):
    base = service.push("fresh-base", make_checkpoint(tmp_path / "base", seed=11))
    adapted = service.push("fresh-adapted", make_checkpoint(tmp_path / "adapted", seed=12, like=tmp_path / "base"))
    shard = max(weights(service, {"result": {"repo": adapted, "commit": "main"}}).values())
    spoil_last_byte(service, shard)
    job = service.run(service.recipe(base, adapted, "from-corrupt"))
    spoil_last_byte(service, shard)
    assert (job["status"], job["error"]["code"], job["error"]["stage"]) == ("failed", "file_corrupt", "downloading")
    assert job["error"]["names"]["file"].endswith(".safetensors")
    assert job["error"]["names"]["expected"] == f"sha256:{shard}" != job["error"]["names"]["found"]
    assert shard in job["error"]["message"]
    with service.client() as client:
        retried = service.wait(client.retry(job["id"])["id"])
    assert (retried["status"], retried["retry_of"]) == ("succeeded", job["id"])


def spoil_last_byte(service: Service, sha256: str) -> None:
    """Flip the last byte of a stored file behind the Hub's back; twice is as before."""
    (blob,) = (path for path in service.hub.root.rglob(f"*{sha256}*") if path.is_file())
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.chmod(0o600)
    blob.write_bytes(content)


def test_scoring_first_then_a_merge_that_names_it(service, large_pair):
    base, adapted, *_ = large_pair
    with service.client() as client:
        scoring = client.score({"base": {"repo": base}, "experts": [{"repo": adapted}]})
        *_, done = client.watch(scoring["id"])
        assert done["status"] == "succeeded", done["error"]
        assert (done["result"]["repo"], done["result"]["scored"]) == (None, 28)
        rows = client.scores(scoring["id"])
        job = service.wait(client.submit(service.recipe(base, adapted, "looked-at") | {"scores": scoring["id"]})["id"])
        assert job["status"] == "succeeded", job["error"]
        assert client.scores(job["id"]) == rows
        assert client.report(job["id"])["costs"]["spectra_computed"] == 0
