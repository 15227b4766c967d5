"""Adapters on a real Hub server: before queueing, and from there through download, merge and evidence."""

import io
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from app.errors import Code, SpearError
from app.hub.blobs import BlobCache
from app.hub.client import Hub, Hubs
from app.hub.download import fetch
from app.hub.preflight import Preflight, preflight
from app.recipes import parse_recipe
from app.settings import Settings
from tests.fixtures.adapters import make_adapter, merged_by_peft
from tests.fixtures.checkpoints import CONFIG, TENSORS, checkpoint, push, safetensors
from worker.pipeline.run import run
from worker.pipeline.task import Input, Reporter, Task

Q = "base_model.model.model.layers.0.self_attn.q_proj"
FACTORS = {f"{Q}.lora_A.weight": ("F32", (2, 8)), f"{Q}.lora_B.weight": ("F32", (8, 2))}
ADAPTER = {
    "adapter_config.json": json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4}).encode(),
    "adapter_model.safetensors": safetensors(FACTORS),
}
PICKLED = {"adapter_config.json": ADAPTER["adapter_config.json"], "adapter_model.bin": b"x"}


@dataclass
class House:
    api: Any
    name: str
    hubs: Hubs

    def push(self, name: str, files: dict[str, bytes]) -> str:
        push(self.api, f"{self.name}/{name}", files, private=True)
        return f"{self.name}/{name}"

    def recipe(self, **changes: Any) -> Any:
        body = {
            "base": {"repo": f"{self.name}/base"}, "experts": [{"repo": f"{self.name}/lora"}],
            "method": {"name": "spear", "policy": "aggressive"}, "target": {"repo": f"{self.name}/out"}, **changes,
        }  # fmt: skip
        return parse_recipe(body)

    def check(self, **changes: Any) -> Preflight:
        grants = [self.name]
        return preflight(self.recipe(**changes), hubs=self.hubs, settings=Settings(), reads=grants, writes=grants)

    def refusal(self, code: Code, pointer: str, **changes: Any) -> SpearError:
        with pytest.raises(SpearError) as caught:
            self.check(**changes)
        assert (caught.value.code, caught.value.pointer) == (code, pointer), caught.value
        return caught.value


@pytest.fixture
def house(local_hub):
    name, token = local_hub.fresh_user("ada")
    hubs = Hubs(Hub(local_hub.endpoint, None, timeout_seconds=5), Hub(local_hub.endpoint, token, timeout_seconds=5))
    found = House(local_hub.api(token), name, hubs)
    found.push("base", checkpoint(seed=1))
    yield found
    hubs.anonymous.close()
    hubs.service.close()


def test_an_adapter_is_pinned_held_against_the_base_and_told(house):
    house.push("lora", {**ADAPTER, "README.md": b"---\nlicense: mit\n---\n"})
    found = house.check()
    base, head = found.heads
    assert head.changed == {"model.layers.0.self_attn.q_proj.weight"}
    assert head.config == base.config
    assert {file.path for file in head.files} == {*ADAPTER, "README.md"}
    assert found.admission.bytes == found.output_bytes == 2 * (80 + 64 + 128 + 8)
    assert found.bytes_to_download == sum(file.size for one in found.heads for file in one.files)
    assert [words.partition(":")[0] for words in found.warnings] == [f"{house.name}/lora is a LoRA adapter"]


def test_whole_models_and_adapters_go_together(house):
    house.push("lora", ADAPTER)
    house.push("whole", checkpoint(seed=2))
    experts = [{"repo": f"{house.name}/whole"}, {"repo": f"{house.name}/lora"}]
    found = house.check(experts=experts, method={"name": "ties"})
    assert [head.adapter is not None for head in found.heads] == [False, False, True]


def test_beside_a_whole_model_the_adapter_is_what_an_expert_means(house):
    both = house.push("both", {**ADAPTER, **checkpoint(seed=2)})
    found = house.check(experts=[{"repo": both}])
    assert found.heads[1].adapter
    assert "model.safetensors" not in {file.path for file in found.heads[1].files}
    assert any("left aside" in words for words in found.warnings)
    house.push("lora", ADAPTER)
    assert house.check(base={"repo": both}).heads[0].adapter is None


def test_the_base_cannot_be_an_adapter(house):
    lora = house.push("lora", ADAPTER)
    error = house.refusal(Code.ADAPTER_UNSUPPORTED, "/base/repo", base={"repo": lora})
    assert "the base must be a whole model" in error.message
    assert error.names["repo"] == lora


def test_another_vocabulary_is_refused_by_the_tokenizer_too(house):
    tokenizer = json.loads(checkpoint()["tokenizer.json"])
    tokenizer["model"]["vocab"] |= {"t3": 4, "t4": 3}
    house.push("lora", {**ADAPTER, "tokenizer.json": json.dumps(tokenizer).encode()})
    assert house.refusal(Code.VOCABULARY_MISMATCH, "/experts/0/repo").names["token"] == "t3"


def test_a_tokenizer_that_asks_for_code_is_refused(house):
    house.push("lora", {**ADAPTER, "tokenizer_config.json": b'{"auto_map": {"AutoTokenizer": "t.T"}}'})
    house.refusal(Code.REMOTE_CODE, "/experts/0/repo")


CASES: dict[str, tuple[dict[str, bytes], Code, str]] = {
    "pickle": (PICKLED, Code.PICKLE_ONLY, "adapter_model.bin"),
    "config alone": ({"adapter_config.json": b"{}"}, Code.WEIGHTS_MISSING, "model.safetensors"),
    "other kind": (
        {**ADAPTER, "adapter_config.json": b'{"peft_type": "LOKR"}'}, Code.ADAPTER_UNSUPPORTED, "'LOKR' adapter",
    ),
    "not JSON": ({**ADAPTER, "adapter_config.json": b"{"}, Code.ADAPTER_INVALID, "adapter_config.json"),
    "cut short": (
        {**ADAPTER, "adapter_model.safetensors": safetensors(FACTORS)[:-1]}, Code.HEADER_INVALID, "lora_B.weight",
    ),
    "missing target": (
        {**ADAPTER, "adapter_model.safetensors":
         safetensors({name.replace("q_proj", "w"): spec for name, spec in FACTORS.items()})},
        Code.TENSOR_MISSING, "self_attn.w.weight",
    ),
    "other shape": (
        {**ADAPTER, "adapter_model.safetensors": safetensors({n: (d, (9, 9)) for n, (d, _) in FACTORS.items()})},
        Code.SHAPE_MISMATCH, "q_proj",
    ),
    "new rows": (
        {**ADAPTER, "adapter_model.safetensors":
         safetensors({"base_model.model.model.embed_tokens.weight": ("F32", (12, 8))})},
        Code.VOCABULARY_MISMATCH, "embed_tokens",
    ),
    "8 bits": (
        {**ADAPTER, "adapter_model.safetensors": safetensors({n: ("I8", s) for n, (_, s) in FACTORS.items()})},
        Code.DTYPE_UNSUPPORTED, "lora_A",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_an_adapter_that_cannot_be_applied_is_refused_by_name(house, case):
    files, code, words = CASES[case]
    house.push("lora", files)
    error = house.refusal(code, "/experts/0/repo")
    assert words in error.message
    assert error.names["repo"] == f"{house.name}/lora"


# --- quantised models -------------------------------------------------------------------------------------------------

UP = "model.layers.0.mlp.up_proj"
REST = {name: spec for name, spec in TENSORS.items() if UP not in name}
WHOLE = {key: value for key, value in checkpoint().items() if key != "model.safetensors"}


def quantised(fields: dict[str, Any], **tensors: tuple[str, tuple[int, ...]]) -> dict[str, bytes]:
    named = {f"{UP}.{name.replace('__', '.')}": spec for name, spec in tensors.items()}
    return checkpoint(config={**CONFIG, **fields}, tensors={**REST, **(named or dict(TENSORS))})


GPTQ = {"qweight": ("I32", (1, 16)), "qzeros": ("I32", (1, 2)), "scales": ("F16", (1, 16)), "g_idx": ("I32", (8,))}
AWQ = {"qweight": ("I32", (8, 2)), "qzeros": ("I32", (1, 2)), "scales": ("F16", (1, 16))}
BNB4 = {"weight": ("U8", (64, 1)), "weight__absmax": ("F32", (2,)), "weight__quant_map": ("F32", (16,))}
FP8 = {"weight": ("F8_E4M3", (16, 8)), "weight_scale_inv": ("F32", (1, 1))}
FORMATS: dict[str, tuple[dict[str, bytes], str]] = {
    "GGUF": ({"model-Q4_K_M.gguf": b"GGUF", "config.json": WHOLE["config.json"]}, "model-Q4_K_M.gguf is GGUF"),
    "GPTQ": (quantised({"quantization_config": {"quant_method": "gptq", "bits": 4}}, **GPTQ), "quantization_config"),
    "GPTQ, silent": (quantised({}, **GPTQ), "up_proj"),
    "AWQ": (quantised({"quantization_config": {"quant_method": "awq", "bits": 4}}, **AWQ), "quantization_config"),
    "AWQ, silent": (quantised({}, **AWQ), "up_proj"),
    "bitsandbytes": (quantised({"quantization_config": {"load_in_4bit": True}}, **BNB4), "quantization_config"),
    "bitsandbytes, silent": (quantised({}, **BNB4), "up_proj"),
    "FP8": (quantised({"quantization_config": {"quant_method": "fp8"}}, **FP8), "quantization_config"),
    "FP8, silent": (quantised({}, **FP8), "up_proj"),
    "compressed-tensors": (quantised({"compression_config": {"format": "int-quantized"}}), "compression_config"),
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("place", ["base", "expert"])
def test_a_quantised_model_is_refused_by_format(house, name, place):
    files, words = FORMATS[name]
    packed = house.push("packed", files)
    house.push("lora", ADAPTER)
    changes = {"base": {"repo": packed}} if place == "base" else {"experts": [{"repo": packed}]}
    with pytest.raises(SpearError) as caught:
        house.check(**changes)
    assert caught.value.code is Code.QUANTIZED_WEIGHTS, caught.value
    assert words in caught.value.message


# --- end to end -------------------------------------------------------------------------------------------------------


def upload(house: House, name: str, folder: Path) -> None:
    house.api.create_repo(f"{house.name}/{name}", private=True)
    house.api.upload_folder(repo_id=f"{house.name}/{name}", folder_path=folder)


def download(house: House, found: Preflight, *, work: Path) -> tuple[Input, ...]:
    inputs = []
    for number, head in enumerate(found.heads):
        into = work / "inputs" / str(number)
        digests = fetch(
            house.hubs.service, head.pin, head.files, cache=BlobCache(work / "cache", max_bytes=10**9), into=into,
            progress=lambda _: None, stop=lambda: False, workers=2,
        )  # fmt: skip
        pin = head.pin
        inputs.append(Input(repo=pin.repo, revision=pin.revision, commit=pin.commit, path=into, digests=digests))
    return tuple(inputs)


@pytest.mark.parametrize("method", [{"name": "spear", "policy": "aggressive"}, {"name": "linear"}], ids=str)
def test_from_the_hub_to_a_merged_checkpoint(house, base_model, tmp_path, method):
    adapter = make_adapter(base_model, tmp_path / "adapter", use_rslora=True, target_modules="all-linear")
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = f"{house.name}/base-1"
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    upload(house, "base-1", base_model)
    upload(house, "adapter-1", adapter)
    parts = {"base": {"repo": f"{house.name}/base-1"}, "experts": [{"repo": f"{house.name}/adapter-1"}]}
    found = house.check(**parts, method=method)
    assert len(found.warnings) == 1
    inputs = download(house, found, work=tmp_path)
    task = Task(
        job_id="mrg_test", attempt=1, recipe=house.recipe(**parts, method=method), inputs=inputs,
        work_dir=tmp_path / "job", warnings=found.warnings,
    )  # fmt: skip
    run(task, Reporter(io.BytesIO()))
    merged = load_file(task.output / "model.safetensors")
    assert sum(tensor.nbytes for tensor in merged.values()) == found.output_bytes
    card = (task.output / "README.md").read_text()
    assert "LoRA adapter, applied to the base" in card
    assert "is a LoRA adapter: it is applied to" in card
    _compare(merged, task, merged_by_peft(base_model, adapter))
    shutil.rmtree(task.work_dir)


def _compare(merged: dict[str, torch.Tensor], task: Task, theirs: dict[str, torch.Tensor]) -> None:
    """What the adapter made and the merge left alone is peft's own to one rounding; the rest is the base's."""
    manifest = json.loads((task.output / "merge_manifest.json").read_text())
    restored = {entry["name"] for entry in manifest["decisions"] if "t" in entry}
    for name in merged.keys() - restored:
        allowed = theirs[name].double().abs() * 2.0**-7 + 1e-9
        assert ((merged[name].double() - theirs[name].double()).abs() <= allowed).all(), name
    assert len(merged.keys() - restored) >= 8
