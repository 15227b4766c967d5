"""Adapters made, saved and merged by the real peft: what is read equals `merge_and_unload` to one rounding."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from app.errors import Code, SpearError
from tests.fixtures.adapters import ATTENTION, LINEAR, make_adapter, merged_by_peft
from tests.fixtures.models import make_checkpoint
from worker.checkpoints.adapter import AdaptedCheckpoint
from worker.checkpoints.open import open_model
from worker.checkpoints.reader import Checkpoint, memory


def rounding(tensor: torch.Tensor, *, before: torch.Tensor | None = None) -> torch.Tensor:
    """What two computations may differ by that round once to the tensor's dtype: one unit in its last place, fp64.

    peft multiplies and adds in fp32, ours in fp64: two units of fp32 at the tensor's scale come on top. Of an embedding
    (`before` is the base's) peft rounds the change by itself before it adds it: one more rounding, of the change.
    """
    values = tensor.double().abs().clamp(min=torch.finfo(tensor.dtype).tiny)
    eps = torch.finfo(tensor.dtype).eps
    extra = (tensor.double() - before.double()).abs() * eps if before is not None else 0.0
    return values * eps + values.max() * 2 * torch.finfo(torch.float32).eps + extra


def check(base: Path, adapter: Path, *, changed: set[str] | None = None) -> dict[str, torch.Tensor]:
    theirs = merged_by_peft(base, adapter)
    seen = set()
    with open_model(adapter, base=base) as ours, Checkpoint.open(base) as before:
        assert isinstance(ours, AdaptedCheckpoint)
        assert ours.tensors == before.tensors
        found = {name: ours.read(name) for name in ours.tensors}
        for name, tensor in found.items():
            expected = theirs[name]
            assert tensor.dtype == expected.dtype
            error = (tensor.double() - expected.double()).abs()
            allowed = rounding(expected, before=before.read(name) if name.endswith("embed_tokens.weight") else None)
            assert (error <= allowed).all(), (name, float((error / allowed).max()))
            if not torch.equal(tensor, before.read(name)):
                seen.add(name)
        assert seen == set(ours.changes)
    assert changed is None or seen == changed
    return found


def layers(*modules: str, count: int = 2) -> set[str]:
    group = {module: "self_attn" if module in ATTENTION else "mlp" for module in modules}
    return {f"model.layers.{i}.{part}.{name}.weight" for i in range(count) for name, part in group.items()}


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16, torch.float16], ids=["fp32", "bf16", "fp16"])
def base(request, tmp_path_factory) -> Path:
    """An untied base of this dtype, in shards."""
    path = tmp_path_factory.mktemp("bases") / "base"
    return make_checkpoint(path, seed=3, tied=False, dtype=request.param)


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "all-linear": {"target_modules": "all-linear"},
    "rslora": {"use_rslora": True, "r": 8},
    "dora": {"use_dora": True, "target_modules": LINEAR},
    "dora-rslora": {"use_dora": True, "use_rslora": True},
    "rank-pattern": {"rank_pattern": {"q_proj": 2, "layers.1.self_attn.v_proj": 7}, "use_rslora": True},
    "alpha-pattern": {"alpha_pattern": {"^model.layers.0.self_attn.k_proj": 3, "o_proj": 1.5, r".*1.*q_proj": 64}},
    "both-patterns": {"rank_pattern": {"k_proj": 1}, "alpha_pattern": {"k_proj": 5, "(q|v)_proj": 2}},
    "modules-to-save": {"modules_to_save": ["lm_head", "embed_tokens"]},
    "norms-to-save": {"modules_to_save": ["input_layernorm"]},
    "embedding": {"target_modules": ["embed_tokens", "q_proj"]},
    "embedding-dora": {"target_modules": ["embed_tokens", "q_proj"], "use_dora": True},
    "head": {"target_modules": ["lm_head", "down_proj"]},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "some-layers": {"layers_to_transform": [1]},
    "negative-alpha": {"lora_alpha": -3},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_equals_peft(base, tmp_path, variant):
    found = check(base, make_adapter(base, tmp_path / "adapter", **VARIANTS[variant]))
    assert found


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("dora", [False, True])
def test_the_adapters_own_dtype_may_differ(base, tmp_path, stored, dora):
    check(base, make_adapter(base, tmp_path / "adapter", dtype=stored, use_dora=dora), changed=layers(*ATTENTION))


def test_what_is_changed_is_what_the_adapter_names(base, tmp_path):
    check(base, make_adapter(base, tmp_path / "a", target_modules=["up_proj"]), changed=layers("up_proj"))


def test_biases_as_peft_saves_them(tmp_path):
    base = qwen(tmp_path / "base")
    for name, options in (
        ("all", {"bias": "all"}), ("lora-only", {"bias": "lora_only"}), ("lora-bias", {"lora_bias": True}),
    ):  # fmt: skip
        options["target_modules"] = ["q_proj", "v_proj"]
        found = check(base, make_adapter(base, tmp_path / name, **options))
        assert found["model.layers.0.self_attn.q_proj.bias"].abs().max() > 0


def qwen(path: Path) -> Path:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(5)
        Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(path)
    return path


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("prefix", ["transformer.", ""])
def test_conv1d_stores_its_weights_the_other_way_round(tmp_path, dora, prefix):
    base = gpt2(tmp_path / "base", prefix=prefix)
    options = {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True, "use_dora": dora}
    adapter = make_adapter(base, tmp_path / "adapter", **options)
    theirs = merged_by_peft(base, adapter)
    with open_model(adapter, base=base) as ours:
        assert len(ours.changes) == 2 * 4
        for name in ours.changes:
            expected = theirs["transformer." + name.removeprefix("transformer.")]
            assert ((ours.read(name).double() - expected.double()).abs() <= rounding(expected)).all(), name


def gpt2(path: Path, *, prefix: str) -> Path:
    """With square projections, where only the model type tells how they lie."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=96, n_positions=32, n_embd=32, n_layer=2, n_head=4, n_inner=32)
    with torch.random.fork_rng():
        torch.manual_seed(6)
        GPT2LMHeadModel(config).save_pretrained(path)
    file = path / "model.safetensors"
    tensors = load_file(file)
    assert all(name.startswith("transformer.") for name in tensors)
    save_file({prefix + name.removeprefix("transformer."): t for name, t in tensors.items()}, file, {"format": "pt"})
    return path


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["embed_tokens", "q_proj"]},
        {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
        {"modules_to_save": ["lm_head"], "ensure_weight_tying": True},
    ],
    ids=str,
)
def test_a_tied_head_changes_with_its_embedding(base_model, tmp_path, options):
    adapter = make_adapter(base_model, tmp_path / "adapter", **options)
    found = check(base_model, adapter)
    theirs = merged_by_peft(base_model, adapter)["lm_head.weight"]
    error = (found["model.embed_tokens.weight"].double() - theirs.double()).abs()
    with Checkpoint.open(base_model) as before:
        assert (error <= rounding(theirs, before=before.read("model.embed_tokens.weight"))).all()
    assert "lm_head.weight" not in found


# --- how it is read ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["dora", "embedding-dora", "modules-to-save"])
def test_any_span_has_the_same_bits(base, tmp_path, variant, monkeypatch):
    monkeypatch.setattr("worker.checkpoints.adapter_tensor.CHUNK", 300)  # blocks of a few rows
    adapter = make_adapter(base, tmp_path / "adapter", **VARIANTS[variant])
    with open_model(adapter, base=base) as one, open_model(adapter, base=base) as two:
        for name in one.changes:
            info, whole = one.info(name), one.read(name)
            flat, size = whole.view(-1), whole.element_size()
            for start, stop in ((0, 1), (info.elements - 7, info.elements), (61, min(1100, info.elements)), (5, 5)):
                out = torch.empty(stop - start, dtype=whole.dtype)
                assert torch.equal(two.read_flat(name, start=start, stop=stop, out=out), flat[start:stop])
                raw = torch.zeros_like(out)
                two.read_bytes(name, start=start * size, stop=stop * size, out=memory(raw))
                assert torch.equal(raw, flat[start:stop])
                both = torch.empty(len(out) + 2, dtype=whole.dtype)
                two.read_spans(name, [(start, stop), (1, 3)], out=both)
                assert torch.equal(both, torch.cat([out, flat[1:3]]))
    assert one.bytes_read > 0


def test_a_buffer_of_another_dtype_is_refused(base, tmp_path):
    adapter = make_adapter(base, tmp_path / "adapter")
    with open_model(adapter, base=base) as ours, pytest.raises(ValueError, match="is stored as"):
        ours.read_flat(next(iter(ours.changes)), start=0, stop=2, out=torch.empty(2, dtype=torch.float64))


def test_old_spellings_of_names_are_read(base, tmp_path):
    adapter = make_adapter(base, tmp_path / "new", use_dora=True, modules_to_save=["lm_head"])
    old = tmp_path / "old"
    old.mkdir()
    (old / "adapter_config.json").write_bytes((adapter / "adapter_config.json").read_bytes())
    renamed = {}
    for name, tensor in load_file(adapter / "adapter_model.safetensors").items():
        spelt = name.replace("lm_head.weight", "lm_head.modules_to_save.weight").replace("lora_A.", "lora_A.default.")
        renamed[spelt + ".weight" if spelt.endswith("magnitude_vector") else spelt] = tensor
    save_file(renamed, old / "adapter_model.safetensors")
    with open_model(adapter, base=base) as one, open_model(old, base=base) as two:
        assert one.changes.keys() == two.changes.keys()
        assert all(torch.equal(one.read(name), two.read(name)) for name in one.tensors)


STREAM = """
import resource, sys
from pathlib import Path
import torch
from worker.checkpoints.open import open_model

peaks = []
with open_model(Path(sys.argv[2]), base=Path(sys.argv[1])) as model:
    out = torch.empty(1 << 18, dtype=torch.bfloat16)
    for names in ([name for name in model.changes if "layers.0." in name], list(model.changes)):
        for name in names:
            for start in range(0, model.info(name).elements, 1 << 18):
                stop = min(start + (1 << 18), model.info(name).elements)
                model.read_flat(name, start=start, stop=stop, out=out)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(peaks[1] - peaks[0])
"""


def test_memory_holds_one_block_not_the_model(tmp_path):
    base = make_checkpoint(tmp_path / "base", tied=False, hidden=512, layers=8, max_shard_size="1GB")
    adapter = make_adapter(base, tmp_path / "adapter", target_modules="all-linear", use_dora=True)
    line = [sys.executable, "-c", STREAM, str(base), str(adapter)]
    grown = int(subprocess.run(line, capture_output=True, check=True, text=True).stdout)
    assert grown < 4_000  # kB; the model has 33 MB


def test_without_an_adapter_it_is_the_checkpoint(base):
    with open_model(base, base=base) as ours:
        assert type(ours) is Checkpoint


def test_adapter_weights_that_are_missing_or_cut_short(base, tmp_path):
    adapter = make_adapter(base, tmp_path / "adapter")
    file = adapter / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(SpearError) as caught:
        open_model(adapter, base=base)
    assert caught.value.code == Code.HEADER_INVALID
    file.unlink()
    with pytest.raises(SpearError) as caught:
        open_model(adapter, base=base)
    assert caught.value.code == Code.WEIGHTS_MISSING
    assert json.loads((adapter / "adapter_config.json").read_text())["peft_type"] == "LORA"
