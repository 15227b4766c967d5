"""What a tensor's name says."""

import pytest

from worker.scores import place, wanted


@pytest.mark.parametrize(
    ("name", "kind", "layer"),
    [
        ("model.layers.0.self_attn.q_proj.weight", "q", 0),
        ("model.layers.31.self_attn.k_proj.weight", "k", 31),
        ("model.layers.7.self_attn.v_proj.weight", "v", 7),
        ("model.layers.7.self_attn.o_proj.weight", "o", 7),
        ("model.layers.10.mlp.gate_proj.weight", "gate", 10),
        ("model.layers.10.mlp.up_proj.weight", "up", 10),
        ("model.layers.10.mlp.down_proj.weight", "down", 10),
        ("model.embed_tokens.weight", "embedding", None),
        ("lm_head.weight", "head", None),
        ("model.norm.weight", "norm", None),
        ("model.layers.3.input_layernorm.weight", "norm", 3),
        ("model.layers.3.post_attention_layernorm.weight", "norm", 3),
        ("model.layers.3.self_attn.q_norm.weight", "norm", 3),
        ("model.layers.3.self_attn.q_proj.bias", "bias", 3),
        ("model.layers.3.mlp.router.weight", "other", 3),
        ("model.layers.3.self_attn.seq_proj.weight", "other", 3),
    ],
)
def test_the_place_of_a_tensor(name: str, kind: str, layer: int | None) -> None:
    spot = place(name)
    assert (spot.module_type, spot.layer) == (kind, layer)


def test_modules_are_types_or_patterns_and_vectors_are_left_out() -> None:
    name = "model.layers.3.self_attn.q_proj.weight"
    assert wanted(name, ndim=2, modules=("q",))
    assert wanted(name, ndim=2, modules=("*.self_attn.*",))
    assert not wanted(name, ndim=2, modules=("k", "*.mlp.*", "self_attn"))
    assert not wanted(name, ndim=1, modules=("q",))
    assert not wanted("model.layers.3.self_attn.Q_proj.weight", ndim=2, modules=("*.q_proj.*",))
