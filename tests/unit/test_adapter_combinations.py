"""Combinations of what an adapter may be, made and merged by the real peft: equal to `merge_and_unload`."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.fixtures.adapters import LINEAR, make_adapter, merged_by_peft
from tests.fixtures.models import make_checkpoint
from worker.checkpoints.open import open_model
from worker.checkpoints.reader import Checkpoint

PATTERNS = {
    "rank_pattern": {"q_proj": 2, "down_proj": 9},
    "alpha_pattern": {"layers.1.mlp.down_proj": 3, "v_proj": 0.5},
}
LLAMA: dict[str, dict[str, Any]] = {
    "all at once": {"target_modules": LINEAR, "use_dora": True, "use_rslora": True, **PATTERNS},
    "dora and trained embeddings": {"use_dora": True, "modules_to_save": ["embed_tokens", "lm_head", "norm"]},
    "rslora on embedding and head": {"target_modules": ["embed_tokens", "lm_head", "k_proj"], "use_rslora": True},
    "dora on the head": {"target_modules": ["lm_head", "gate_proj"], "use_dora": True, "use_rslora": True},
    "dora in some layers": {"target_modules": LINEAR, "use_dora": True, "layers_to_transform": [0], **PATTERNS},
    "excluded": {"target_modules": "all-linear", "exclude_modules": ["o_proj"], "use_rslora": True},
    "by regular expression": {"target_modules": r".*layers\.1\.(self_attn\.(q|v)_proj|mlp\.up_proj)", "use_dora": True},
    "rank above the size": {"r": 96, "target_modules": ["k_proj", "v_proj"]},
}
CONV: dict[str, dict[str, Any]] = {
    "rslora and patterns": {"use_rslora": True, "rank_pattern": {"c_attn": 3}, "alpha_pattern": {"mlp.c_proj": 5}},
    "dora, rslora and patterns": {"use_dora": True, "use_rslora": True, "rank_pattern": {"h.0.attn.c_proj": 1}},
    "biases": {"bias": "all"},
    "biases with dora": {"bias": "lora_only", "use_dora": True},
    "norms trained whole": {"modules_to_save": ["ln_1", "ln_f"]},
    "one factor's bias": {"lora_bias": True},
}


def compare(base: Path, adapter: Path) -> int:
    """How many tensors the adapter changes; each is peft's to one rounding (plus two of fp32 at the tensor's scale)."""
    theirs = merged_by_peft(base, adapter)
    with open_model(adapter, base=base) as ours, Checkpoint.open(base) as before:
        changed = 0
        for name in ours.tensors:
            found, expected, old = ours.read(name).double(), theirs[name].double(), before.read(name).double()
            step = torch.finfo(theirs[name].dtype).eps
            allowed = expected.abs() * step + expected.abs().max() * 2 * torch.finfo(torch.float32).eps
            allowed += (expected - old).abs() * step * name.endswith("embed_tokens.weight")
            assert ((found - expected).abs() <= allowed).all(), name
            changed += not torch.equal(found, old)
        assert changed == len(ours.changes)
    return changed


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def llama(request, tmp_path_factory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("llama") / "base", seed=4, tied=False, dtype=request.param)


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def gpt2(request, tmp_path_factory) -> Path:
    from transformers import GPT2Config, GPT2LMHeadModel

    path = tmp_path_factory.mktemp("gpt2") / "base"
    config = GPT2Config(vocab_size=96, n_positions=32, n_embd=32, n_layer=2, n_head=4, n_inner=80)
    with torch.random.fork_rng():
        torch.manual_seed(8)
        GPT2LMHeadModel(config).to(request.param).save_pretrained(path)
    return path


@pytest.mark.parametrize("combination", LLAMA)
def test_linear_layers(llama, tmp_path, combination):
    assert compare(llama, make_adapter(llama, tmp_path / "adapter", **LLAMA[combination]))


@pytest.mark.parametrize("combination", CONV)
def test_layers_that_store_their_weights_turned(gpt2, tmp_path, combination):
    options = {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True, **CONV[combination]}
    assert compare(gpt2, make_adapter(gpt2, tmp_path / "adapter", **options)) >= 8
