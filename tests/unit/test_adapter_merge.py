"""Merging with an adapter: the same bytes as with the whole model that it makes, by every way through the pipeline."""

import io
import json
import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from app.errors import Code, SpearError
from app.recipes import parse_recipe, parse_scoring
from tests.fixtures.adapters import LINEAR, make_adapter, merged_by_peft
from tests.fixtures.models import make_checkpoint, rewrite_tensor
from worker.checkpoints.open import open_model
from worker.pipeline.companions import copy_companions
from worker.pipeline.merge import merge
from worker.pipeline.run import run
from worker.pipeline.task import Input, Reporter, Task
from worker.pipeline.verify import verify

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    """A base, an adapter of it, the whole model that both make, and another whole expert."""
    folder = tmp_path_factory.mktemp("adapters")
    base = make_checkpoint(folder / "base", seed=1)
    adapter = make_adapter(base, folder / "adapter", seed=2, use_dora=True, target_modules=LINEAR)
    other = make_checkpoint(folder / "other", seed=3, like=base)
    return {"base": base, "adapter": adapter, "whole": make_whole(base, adapter, folder / "whole"), "other": other}


def make_whole(base: Path, adapter: Path, path: Path) -> Path:
    shutil.copytree(base, path, ignore=shutil.ignore_patterns("*.safetensors*"))
    with open_model(adapter, base=base) as model:
        save_file({name: model.read(name) for name in model.tensors}, path / "model.safetensors", {"format": "pt"})
    return path


def task_for(work: Path, *paths: Path, threads: int = 1, **recipe: Any) -> Task:
    body = {
        "base": {"repo": "org/base"}, "experts": [{"repo": f"org/expert-{i}"} for i in range(1, len(paths))],
        "method": {"name": "linear"}, "target": {"repo": "org/merged"}, **recipe,
    }  # fmt: skip
    inputs = tuple(
        Input(
            repo="org/base" if i == 0 else f"org/expert-{i}", revision="main", commit=str(i) * 40, path=path,
            digests={file.name: f"sha256:{sha256(file.read_bytes()).hexdigest()}" for file in path.iterdir()},
        )
        for i, path in enumerate(paths)
    )  # fmt: skip
    return Task(
        job_id="mrg_test", attempt=1, recipe=parse_recipe(body), inputs=inputs, work_dir=work, threads=threads
    )


def run_task(task: Task) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    stream = io.BytesIO()
    summary = run(task, Reporter(stream))
    return summary, [json.loads(line) for line in stream.getvalue().splitlines()]


def weights(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(output.glob("model*"))}


METHODS: dict[str, dict[str, Any]] = {
    "linear": {"method": {"name": "linear"}},
    "slerp": {"method": {"name": "slerp", "t": 0.3}},
    "task_arithmetic": {"method": {"name": "task_arithmetic"}},
    "ties": {"method": {"name": "ties", "density": 0.4}},
    "dare_ties": {"method": {"name": "dare_ties", "density": 0.5, "seed": 7}},
    "spear": {"method": {"name": "spear", "policy": "aggressive"}},
}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_gives_the_bytes_that_the_whole_model_gives(models, tmp_path, name):
    experts = [] if name in {"slerp", "spear"} else [models["other"]]
    for kind in ("adapter", "whole"):
        task = task_for(tmp_path / kind, models["base"], *experts, models[kind], **METHODS[name])
        run_task(task)
    found, expected = (weights(tmp_path / kind / "output") for kind in ("adapter", "whole"))
    assert found == expected
    assert found


def test_linear_equals_the_mean_of_peft_s_own_merge(models, tmp_path):
    run_task(task_for(tmp_path, models["base"], models["other"], models["adapter"], output={"dtype": "float32"}))
    theirs = merged_by_peft(models["base"], models["adapter"])
    other = {name: t for file in models["other"].glob("*.safetensors") for name, t in load_file(file).items()}
    merged = load_file(tmp_path / "output" / "model.safetensors")
    for name, tensor in merged.items():
        expected = (theirs[name].double() + other[name].double()) / 2
        allowed = theirs[name].double().abs() * 2.0**-7 / 2 + expected.abs().max() * 2.0**-23
        assert ((tensor.double() - expected).abs() <= allowed).all(), name


def test_spear_scores_selects_and_tells_of_the_adapter(models, tmp_path):
    task = task_for(tmp_path, models["base"], models["adapter"], **METHODS["spear"])
    summary, _ = run_task(task)
    assert summary["scored"] == 2 * 7
    assert 0 < summary["selected"] < summary["scored"]
    report = json.loads((tmp_path / "output" / "report.json").read_text())
    assert [source["adapter"] for source in report["inputs"]] == [False, True]
    assert all(row["relative_change"] > 0 for row in report["scores"])
    manifest = json.loads((tmp_path / "output" / "merge_manifest.json").read_text())
    assert [entry.get("adapter") for entry in manifest["inputs"]] == [None, True]
    assert {WEIGHTS, "adapter_config.json"} <= set(manifest["inputs"][1]["files"])
    assert "adapted (LoRA adapter, applied to the base)" in (tmp_path / "output" / "README.md").read_text()
    assert not list((tmp_path / "output").glob("adapter*"))


def test_copies_of_the_adapted_model_are_proven_byte_by_byte(models, tmp_path):
    task = task_for(tmp_path, models["base"], models["adapter"], **METHODS["spear"])
    decisions = {"model.layers.0.self_attn.q_proj.weight": 0.5}
    result = merge(task, decisions, Reporter(io.BytesIO()))
    found = verify(task, decisions, result, Reporter(io.BytesIO()))
    assert found.identical == found.tensors - 1
    name = "model.layers.1.mlp.up_proj.weight"
    rewrite_tensor(tmp_path / "output", name, lambda tensor: tensor * 1.5)
    with pytest.raises(SpearError) as caught:
        verify(task, decisions, result, Reporter(io.BytesIO()))
    assert caught.value.code == Code.VERIFICATION_FAILED
    assert caught.value.names["tensor"] == name


def test_a_cached_spectrum_is_that_of_the_applied_tensor(models, tmp_path):
    """A second adapter of the same base finds the base's spectra in the cache, and none of the first one's."""
    first = task_for(tmp_path / "a", models["base"], models["adapter"], **METHODS["spear"])
    _, events = run_task(first)
    records = [event["record"] for event in events if event["kind"] == "spectrum"]
    assert len(records) == 2 * 14
    cache = tmp_path / "spectra.jsonl"
    cache.write_text("".join(json.dumps(record) + "\n" for record in records))
    _, events = run_task(first.model_copy(update={"work_dir": tmp_path / "b", "spectra": cache}))
    assert not [event for event in events if event["kind"] == "spectrum"]
    config = json.loads((models["adapter"] / "adapter_config.json").read_text())
    doubled = shutil.copytree(models["adapter"], tmp_path / "doubled")
    (doubled / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": 2 * config["lora_alpha"]}))
    second = task_for(tmp_path / "c", models["base"], doubled, **METHODS["spear"])
    _, events = run_task(second.model_copy(update={"spectra": cache}))
    fresh = {event["record"]["digest"] for event in events if event["kind"] == "spectrum"}
    assert fresh
    assert not fresh & {record["digest"] for record in records}
    base_files = set(second.base.digests.values())
    assert not fresh & base_files
    assert {record["digest"] for record in records} & base_files


def test_processes_and_adapters_go_together(models, tmp_path):
    one = task_for(tmp_path / "1", models["base"], models["adapter"], **METHODS["spear"])
    two = task_for(tmp_path / "2", models["base"], models["adapter"], threads=2, **METHODS["spear"])
    run_task(one)
    run_task(two)
    assert weights(one.output) == weights(two.output)


def test_a_merge_resumes_to_the_same_bytes(models, tmp_path):
    whole, broken = (
        task_for(tmp_path / name, models["base"], models["other"], models["adapter"]) for name in ("a", "b")
    )
    merge(whole, None, Reporter(io.BytesIO()))

    class StopError(Exception):
        pass

    class Stopping(Reporter):
        def step(self, **data: Any) -> None:
            if data["done"] > 40_000:
                raise StopError

    with pytest.raises(StopError):
        merge(broken, None, Stopping(io.BytesIO()))
    result = merge(broken, None, Reporter(io.BytesIO()))
    assert result.resumed
    assert weights(whole.output) == weights(broken.output)


def test_an_adapter_that_is_not_finite_is_named(models, tmp_path):
    bad = shutil.copytree(models["adapter"], tmp_path / "bad")
    tensors = load_file(bad / WEIGHTS)
    name = next(name for name in tensors if name.endswith("0.mlp.up_proj.lora_B.weight"))
    tensors[name][3, 1] = float("inf")
    save_file(tensors, bad / WEIGHTS)
    for method in ("linear", "spear"):
        task = task_for(tmp_path / method, models["base"], bad, **METHODS[method])
        with pytest.raises(SpearError) as caught:
            run_task(task)
        assert caught.value.code == Code.NONFINITE_TENSOR
        assert caught.value.names["repo"] == "org/expert-1"
        assert caught.value.names["tensor"] == "model.layers.0.mlp.up_proj.weight"


def test_random_masks_go_by_the_adapters_commit(models, tmp_path):
    task = task_for(tmp_path / "a", models["base"], models["adapter"], **METHODS["dare_ties"])
    other = task.inputs[1].model_copy(update={"commit": "f" * 40})
    again = task.model_copy(update={"inputs": (task.inputs[0], other), "work_dir": tmp_path / "b"})
    for one in (task, again):
        merge(one, None, Reporter(io.BytesIO()))
    assert weights(task.output) != weights(again.output)


# --- the files that go along ------------------------------------------------------------------------------------------


def test_the_bases_files_go_along_and_the_merge_loads(models, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run_task(task_for(tmp_path, models["base"], models["other"], models["adapter"]))
    output = tmp_path / "output"
    for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (output / name).read_bytes() == (models["base"] / name).read_bytes()
    model = AutoModelForCausalLM.from_pretrained(output)
    assert model.config.tie_word_embeddings
    assert AutoTokenizer.from_pretrained(output).chat_template
    assert torch.isfinite(model.model.layers[0].mlp.up_proj.weight).all()


def test_the_adapters_own_tokenizer_is_taken_whole(models, tmp_path):
    own = shutil.copytree(models["adapter"], tmp_path / "own")
    (own / "tokenizer.json").write_text('{"own": 1}')
    (own / "chat_template.jinja").write_text("own")
    (own / "config.json").write_text("{}")
    (tmp_path / "out").mkdir()
    names = copy_companions(own, tmp_path / "out", dtype=None, base=models["base"])
    assert (tmp_path / "out" / "tokenizer.json").read_text() == '{"own": 1}'
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == "own"
    assert (tmp_path / "out" / "config.json").read_bytes() == (models["base"] / "config.json").read_bytes()
    assert names == ["chat_template.jinja", "config.json", "generation_config.json", "tokenizer.json"]


def test_an_adapter_is_scored_without_a_merge(models, tmp_path):
    request = {"base": {"repo": "org/base"}, "experts": [{"repo": "org/expert-1"}], "method": {"name": "spear"}}
    merging = task_for(tmp_path / "merge", models["base"], models["adapter"], **METHODS["spear"])
    scoring = merging.model_copy(update={"recipe": parse_scoring(request), "work_dir": tmp_path / "score"})
    rows = []
    for task in (merging, scoring):
        task.work_dir.mkdir(exist_ok=True)
        run_task(task)
        report = json.loads((task.work_dir / "report.json").read_text())
        rows.append([(row["name"], row["swci"], row["svdr"]) for row in report["scores"]])
    assert rows[0] == rows[1]
    assert len(rows[0]) == 2 * 7
