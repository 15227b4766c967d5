"""Which checkpoints may be merged with which, decided from their heads."""

from typing import Any

import pytest

from app.errors import Code, SpearError
from app.hub.admission import Admission, admit
from app.hub.headers import TensorInfo
from app.hub.heads import is_tied
from app.hub.inspect import Head
from app.hub.pins import Pin
from tests.fixtures.checkpoints import CONFIG, TENSORS


def head(repo: str = "org/base", *, tensors: Any = TENSORS, add: Any = None, drop: Any = (), **config: Any) -> Head:
    kept = {name: spec for name, spec in {**tensors, **(add or {})}.items() if name not in drop}
    infos = {name: TensorInfo(name, dtype, shape, "model.safetensors", 0, 8) for name, (dtype, shape) in kept.items()}
    pin = Pin(repo, "main", "0" * 40, private=False, gated=False, license=None, files=())
    merged = {key: value for key, value in {**CONFIG, **config}.items() if value is not None}
    return Head(pin, merged, infos, (), ())


def other(**changes: Any) -> Head:
    return head("org/expert", **changes)


def refusal(code: Code, *heads: Head) -> SpearError:
    with pytest.raises(SpearError) as caught:
        admit(heads)
    assert caught.value.code is code
    return caught.value


def test_equal_heads_are_admitted_as_the_experts_tensors():
    found = admit([head(), other(tensors=dict(reversed(TENSORS.items())))])
    assert [tensor.name for tensor in found.tensors] == list(reversed(TENSORS))
    assert isinstance(found, Admission)
    assert found.parameters == 80 + 64 + 128 + 8
    assert found.bytes == 4 * 8
    assert found.warnings == ()


@pytest.mark.parametrize("field", ["model_type", "hidden_size", "num_hidden_layers", "num_attention_heads"])
def test_a_different_architecture_is_refused_by_field(field):
    value = "qwen2" if field == "model_type" else 4
    error = refusal(Code.ARCHITECTURE_MISMATCH, head(), other(**{field: value}))
    assert (error.names["field"], error.names["repo"], error.names["model"]) == (field, "org/expert", 1)


def test_different_classes_are_refused_and_unnamed_ones_are_not_compared():
    error = refusal(Code.ARCHITECTURE_MISMATCH, head(), other(architectures=["LlamaForSequenceClassification"]))
    assert error.names["field"] == "architectures"
    assert admit([head(), other(architectures=None)]).warnings == ()


def test_the_language_models_part_of_a_config_counts():
    both = {"vocab_size": None, "text_config": {"vocab_size": 10}}
    assert admit([head(**both), other(**both)]).parameters > 0
    error = refusal(Code.VOCABULARY_MISMATCH, head(**both), other(vocab_size=None, text_config={"vocab_size": 12}))
    assert error.names["field"] == "vocab_size"


def test_what_changes_the_models_meaning_but_not_its_shape_is_a_warning():
    assert "rope_theta" in admit([head(rope_theta=1e4), other(rope_theta=1e6)]).warnings[0]


# --- names and shapes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.norm.weight", "model.layers.0.self_attn.q_proj.weight"])
@pytest.mark.parametrize("side", ["base", "expert"])
def test_a_missing_tensor_is_named_with_the_repo_that_lacks_it(name, side):
    heads = [head(drop=[name] if side == "base" else ()), other(drop=[name] if side == "expert" else ())]
    error = refusal(Code.TENSOR_MISSING, *heads)
    assert (error.names["tensor"], error.names["repo"]) == (name, f"org/{side}")


def test_different_names_altogether_are_refused():
    renamed = {name.replace("model.", "transformer."): spec for name, spec in TENSORS.items()}
    refusal(Code.TENSOR_MISSING, head(), other(tensors=renamed))


def test_a_missing_untied_head_is_no_optional_part():
    whole = {"lm_head.weight": ("BF16", (10, 8))}
    error = refusal(
        Code.TENSOR_MISSING, head(add=whole, tie_word_embeddings=False), other(tie_word_embeddings=False)
    )
    assert error.names["tensor"] == "lm_head.weight"


def test_a_top_level_tensor_of_its_own_is_no_optional_part():
    refusal(Code.TENSOR_MISSING, head(add={"wpe.weight": ("BF16", (4, 8))}), other())


PART = {"visual.blocks.0.attn.weight": ("BF16", (4, 4)), "visual.blocks.1.attn.weight": ("BF16", (4, 4))}


def test_a_part_that_only_the_expert_has_is_carried_over():
    found = admit([head(), other(add=PART)])
    assert set(PART) <= {tensor.name for tensor in found.tensors}
    assert found.warnings == ("2 tensors of visual are in org/expert and not in org/base: carried over as they are",)


def test_a_part_that_only_the_base_has_is_carried_over_and_told():
    found = admit([head(add=PART), other()])
    assert {tensor.name for tensor in found.tensors} == {*TENSORS, *PART}
    assert found.warnings == ("2 tensors of visual are in org/base and not in org/expert: carried over as they are",)


def test_of_several_experts_the_last_that_has_a_tensor_counts():
    wide = {name: ("F32", shape) for name, (_, shape) in TENSORS.items()}
    found = admit([head(), other(), head("org/second", tensors=wide, add=PART)])
    expected = dict.fromkeys(wide, "F32") | dict.fromkeys(PART, "BF16")
    assert {tensor.name: tensor.dtype for tensor in found.tensors} == expected


def test_half_a_part_is_refused():
    half = dict(list(PART.items())[:1])
    assert refusal(Code.TENSOR_MISSING, head(add=half), other(add=PART)).names["repo"] == "org/base"


def test_a_shape_is_refused_with_both_shapes():
    error = refusal(Code.SHAPE_MISMATCH, head(), other(add={"model.norm.weight": ("BF16", (9,))}))
    assert (error.names["tensor"], error.names["shape"], error.names["base_shape"]) == ("model.norm.weight", [9], [8])
    assert "[9]" in error.message
    assert "[8]" in error.message


# --- dtypes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
def test_floats_mix(dtype):
    found = admit([head(), other(add={"model.norm.weight": (dtype, (8,))})])
    assert {tensor.dtype for tensor in found.tensors} == {"BF16", dtype}


@pytest.mark.parametrize(
    ("name", "dtype", "code"),
    [
        ("model.norm.weight", "F8_E4M3", Code.QUANTIZED_WEIGHTS),
        ("model.norm.weight", "F4", Code.QUANTIZED_WEIGHTS),
        ("model.norm.weight", "I8", Code.QUANTIZED_WEIGHTS),
        ("model.layers.0.mlp.up_proj.qweight", "I32", Code.QUANTIZED_WEIGHTS),
        ("model.layers.0.mlp.up_proj.scales", "F16", Code.QUANTIZED_WEIGHTS),
        ("model.norm.weight", "C64", Code.QUANTIZED_WEIGHTS),
        ("model.freqs", "C64", Code.DTYPE_UNSUPPORTED),
    ],
)
@pytest.mark.parametrize("place", [0, 1])
def test_what_cannot_be_merged_is_refused_by_tensor(name, dtype, code, place):
    odd = {name: (dtype, (8,))}
    heads = [head(add=odd), other()] if place == 0 else [head(), other(add=odd)]
    error = refusal(code, *heads)
    assert (error.names["tensor"], error.names["dtype"], error.names["model"]) == (name, dtype, place)


def test_whole_numbers_in_buffers_are_copied_if_they_agree():
    assert admit([head(add={"model.ids": ("I64", (1, 4))}), other(add={"model.ids": ("I64", (1, 4))})]).warnings == ()
    error = refusal(
        Code.DTYPE_MISMATCH, head(add={"model.ids": ("I64", (1, 4))}), other(add={"model.ids": ("I32", (1, 4))})
    )
    assert error.names["tensor"] == "model.ids"


# --- heads ------------------------------------------------------------------------------------------------------------

HEAD = {"lm_head.weight": ("BF16", (10, 8))}


def test_a_head_stored_though_tied_is_left_out_with_a_warning():
    for heads in ([head(), other(add=HEAD)], [head(add=HEAD), other()], [head(add=HEAD), other(add=HEAD)]):
        found = admit(heads)
        assert "lm_head.weight" not in {tensor.name for tensor in found.tensors}
        assert "lm_head.weight" in found.warnings[0]


def test_a_tied_head_stored_in_place_of_the_embedding_is_kept():
    only = {"add": HEAD, "drop": ["model.embed_tokens.weight"]}
    assert "lm_head.weight" in {tensor.name for tensor in admit([head(**only), other(**only)]).tensors}


def test_a_tied_and_a_loose_head_do_not_go_together():
    error = refusal(Code.TIED_HEAD_MISMATCH, head(), other(add=HEAD, tie_word_embeddings=False))
    assert error.names["field"] == "tie_word_embeddings"
    assert "org/base ties" in error.message


@pytest.mark.parametrize(
    ("changes", "tied"),
    [
        ({"tie_word_embeddings": True, "add": HEAD}, True),
        ({"tie_word_embeddings": False}, False),
        ({"tie_word_embeddings": None}, True),
        ({"tie_word_embeddings": None, "add": HEAD}, False),
        ({"tie_word_embeddings": None, "add": HEAD, "model_type": "gemma2"}, True),
        ({"tie_word_embeddings": None, "add": HEAD, "text_config": {"tie_word_embeddings": True}}, True),
    ],
)
def test_whether_a_head_is_tied(changes, tied):
    found = head(**changes)
    assert is_tied(found.config, found.tensors) is tied
