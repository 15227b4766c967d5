"""Every architecture that is offered: made by transformers from its config, scored from its file."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from worker.checkpoints.reader import Checkpoint
from worker.scores import Part, parts, wanted

HIDDEN, INNER, HEADS, GROUPS, LAYERS, EXPERTS = 32, 48, 4, 2, 2, 3
PROJECTIONS = ("q", "k", "v", "o", "gate", "up", "down")
COMMON = {
    "vocab_size": 96, "hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS, "num_key_value_heads": GROUPS, "max_position_embeddings": 64, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
MODELS: dict[str, dict[str, Any]] = {
    "llama": COMMON, "qwen2": COMMON, "qwen3": {**COMMON, "head_dim": 8}, "mistral": COMMON,
    "gemma": {**COMMON, "head_dim": 8}, "gemma2": {**COMMON, "head_dim": 8}, "gemma3_text": {**COMMON, "head_dim": 8},
    "phi": COMMON, "phi3": COMMON,
    "gpt_neox": {key: value for key, value in COMMON.items() if key != "num_key_value_heads"},
    "gpt2": {"vocab_size": 96, "n_embd": HIDDEN, "n_layer": LAYERS, "n_head": HEADS, "n_positions": 64,
             "n_inner": INNER, "bos_token_id": 1, "eos_token_id": 2},
    "mixtral": {**COMMON, "num_local_experts": EXPERTS},
    "qwen2_moe": {**COMMON, "num_experts": EXPERTS, "moe_intermediate_size": 24,
                  "shared_expert_intermediate_size": 40, "num_experts_per_tok": 2},
    "qwen3_moe": {**COMMON, "head_dim": 8, "num_experts": EXPERTS, "moe_intermediate_size": 24,
                  "num_experts_per_tok": 2},
}  # fmt: skip
NO_GATE = ("phi", "gpt_neox", "gpt2")
MIXTURES = ("mixtral", "qwen2_moe", "qwen3_moe")


def saved(model: str, path: Path) -> tuple[Any, Checkpoint]:
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = AutoModelForCausalLM.from_config(AutoConfig.for_model(model, **MODELS[model]), dtype=torch.float32)
    network.save_pretrained(path)
    return network, Checkpoint.open(path)


def scored(checkpoint: Checkpoint, modules: tuple[str, ...] = PROJECTIONS) -> list[Part]:
    return [
        part
        for name, info in checkpoint.tensors.items()
        if wanted(name, ndim=len(info.shape), modules=modules)
        for part in parts(name, shape=info.shape, config=checkpoint.config)
    ]


@pytest.mark.parametrize("model", MODELS)
def test_every_projection_of_every_layer_is_found_once(model: str, tmp_path: Path) -> None:
    _, checkpoint = saved(model, tmp_path)
    with checkpoint:
        found = Counter((part.module_type, part.layer, part.expert) for part in scored(checkpoint))
        dense = [p for p in PROJECTIONS if not (p == "gate" and model in NO_GATE)]
        expected = Counter((p, layer, None) for p in dense for layer in range(LAYERS))
        if model in MIXTURES:
            mlp, experts = ("gate", "up", "down"), range(EXPERTS)
            if model != "qwen2_moe":  # which has a shared expert beside the routed ones
                expected -= Counter((p, layer, None) for p in mlp for layer in range(LAYERS))
            expected += Counter((p, layer, e) for p in mlp for layer in range(LAYERS) for e in experts)
        assert found == expected


@pytest.mark.parametrize("model", MODELS)
def test_parts_are_as_large_as_they_say_and_make_up_their_tensor(model: str, tmp_path: Path) -> None:
    _, checkpoint = saved(model, tmp_path)
    with checkpoint:
        sizes: Counter[str] = Counter()
        for part in scored(checkpoint):
            matrix = part.cut(checkpoint.read(part.tensor))
            assert tuple(matrix.shape) == part.shape
            sizes[part.tensor] += matrix.numel()
        assert sizes == {name: checkpoint.tensors[name].elements for name in sizes}


@pytest.mark.parametrize("model", MODELS)
def test_embedding_and_head_are_groups_of_their_own(model: str, tmp_path: Path) -> None:
    network, checkpoint = saved(model, tmp_path)
    with checkpoint:
        kinds = Counter(part.module_type for part in scored(checkpoint, ("embedding", "head")))
        assert kinds["embedding"] == 1
        assert kinds["head"] == (0 if network.config.tie_word_embeddings else 1)


def test_phi3_rows_are_those_that_the_model_slices(tmp_path: Path) -> None:
    network, checkpoint = saved("phi3", tmp_path)
    with checkpoint:
        matrices = {part.name: part.cut(checkpoint.read(part.tensor)) for part in scored(checkpoint)}
    fused = network.model.layers[1].self_attn.qkv_proj.weight
    size = HIDDEN // HEADS
    name = "model.layers.1.self_attn.qkv_proj.weight"
    assert torch.equal(matrices[f"{name}#q"], fused[:HIDDEN])
    assert torch.equal(matrices[f"{name}#k"], fused[HIDDEN : HIDDEN + GROUPS * size])
    assert torch.equal(matrices[f"{name}#v"], fused[HIDDEN + GROUPS * size :])
    gate, up = network.model.layers[0].mlp.gate_up_proj.weight.chunk(2, dim=0)
    name = "model.layers.0.mlp.gate_up_proj.weight"
    assert torch.equal(matrices[f"{name}#gate"], gate)
    assert torch.equal(matrices[f"{name}#up"], up)


def test_gpt_neox_parts_give_the_queries_keys_and_values_of_the_model(tmp_path: Path) -> None:
    network, checkpoint = saved("gpt_neox", tmp_path)
    attention = network.gpt_neox.layers[0].attention
    hidden = torch.randn(1, 5, HIDDEN, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        fused = torch.nn.functional.linear(hidden, attention.query_key_value.weight)
        expected = fused.view(1, 5, HEADS, 3 * (HIDDEN // HEADS)).transpose(1, 2).chunk(3, dim=-1)
    with checkpoint:
        matrices = {part.name: part.cut(checkpoint.read(part.tensor)) for part in scored(checkpoint)}
    for kind, states in zip("qkv", expected, strict=True):
        matrix = matrices[f"gpt_neox.layers.0.attention.query_key_value.weight#{kind}"]
        mine = torch.nn.functional.linear(hidden, matrix).view(1, 5, HEADS, HIDDEN // HEADS).transpose(1, 2)
        torch.testing.assert_close(mine, states)


def test_gpt2_columns_are_those_that_the_model_splits(tmp_path: Path) -> None:
    network, checkpoint = saved("gpt2", tmp_path)
    expected = network.transformer.h[1].attn.c_attn.weight.split(HIDDEN, dim=1)
    with checkpoint:
        matrices = {part.name: part.cut(checkpoint.read(part.tensor)) for part in scored(checkpoint)}
    for kind, columns in zip("qkv", expected, strict=True):
        assert torch.equal(matrices[f"transformer.h.1.attn.c_attn.weight#{kind}"], columns)


@pytest.mark.parametrize("model", MIXTURES)
def test_experts_of_a_layer_and_type_are_one_unit(model: str, tmp_path: Path) -> None:
    _, checkpoint = saved(model, tmp_path)
    with checkpoint:
        routed = [part for part in scored(checkpoint) if part.expert is not None]
        units = Counter(part.unit for part in routed)
        assert set(units.values()) == {EXPERTS}
        assert len(units) == 3 * LAYERS
        routers = [n for n in checkpoint.tensors if n.endswith((".gate.weight", "_expert_gate.weight"))]
        assert routers
        assert not {part.tensor for part in scored(checkpoint)} & set(routers)


def test_experts_stacked_in_one_tensor_are_taken_apart() -> None:
    name = "model.layers.1.mlp.experts.gate_up_proj"
    stacked = torch.arange(3 * 8 * 4, dtype=torch.float32).view(3, 8, 4)
    assert wanted(name, ndim=3, modules=("up",))
    pieces = parts(name, shape=stacked.shape, config={})
    assert [(p.name.removeprefix(name), p.module_type, p.layer, p.expert) for p in pieces][:3] == [
        ("#0#gate", "gate", 1, 0), ("#0#up", "up", 1, 0), ("#1#gate", "gate", 1, 1),
    ]  # fmt: skip
    assert torch.equal(pieces[5].cut(stacked), stacked[2, 4:])
    assert {p.unit for p in pieces} == {name}


def test_stacked_experts_that_are_stored_transposed_stay_whole() -> None:
    name = "model.layers.0.mlp.experts.gate_up_proj"
    pieces = parts(name, shape=(2, 32, 96), config={"model_type": "gpt_oss", "hidden_size": 32})
    assert [(piece.name.removeprefix(name), piece.module_type) for piece in pieces] == [
        ("#0", "gate_up"), ("#1", "gate_up"),
    ]  # fmt: skip


@pytest.mark.parametrize("config", [{}, {"model_type": "falcon", "num_attention_heads": 5, "hidden_size": 64}])
def test_a_fused_tensor_of_an_unknown_layout_stays_whole(config: dict[str, Any]) -> None:
    name = "transformer.h.0.self_attn.qkv_proj.weight"
    assert [(p.name, p.module_type) for p in parts(name, shape=(96, 32), config=config)] == [(name, "qkv")]
    assert wanted(name, ndim=2, modules=("v",))


def test_other_towers_are_left_alone() -> None:
    name = "vision_tower.encoder.layers.0.self_attn.q_proj.weight"
    assert not wanted(name, ndim=2, modules=PROJECTIONS)
    assert wanted("language_model.model.layers.0.self_attn.q_proj.weight", ndim=2, modules=PROJECTIONS)
