"""Which adapters can be applied, decided from config and headers."""

import json
from typing import Any

import pytest

from app.errors import Code, SpearError
from app.hub.adapter_heads import adapter_warnings, applied, ships_tokenizer
from app.hub.adapter_tensors import plan_changes
from app.hub.adapters import AdapterConfig, applied_digests, parse_adapter_config
from app.hub.admission import admit
from app.hub.headers import TensorInfo
from app.hub.inspect import Head
from app.hub.pins import Pin, RemoteFile
from tests.fixtures.checkpoints import CONFIG, TENSORS

Q = "model.layers.0.self_attn.q_proj"
UP = "model.layers.0.mlp.up_proj"
PLAIN = {
    f"base_model.model.{Q}.lora_A.weight": (2, 8), f"base_model.model.{Q}.lora_B.weight": (8, 2),
    f"base_model.model.{UP}.lora_A.weight": (2, 8), f"base_model.model.{UP}.lora_B.weight": (16, 2),
}  # fmt: skip


def parse(**fields: Any) -> AdapterConfig:
    return parse_adapter_config(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4} | fields).encode())


def infos(shapes: dict[str, tuple[int, ...]], *, dtype: str = "F32") -> dict[str, TensorInfo]:
    return {name: TensorInfo(name, dtype, shape, "adapter_model.safetensors", 0, 8) for name, shape in shapes.items()}


def base_tensors(**more: tuple[int, ...]) -> dict[str, TensorInfo]:
    named = {name: shape for name, (_, shape) in TENSORS.items()} | {"lm_head.weight": (10, 8)} | more
    return infos(named, dtype="BF16")


def plan(shapes: dict[str, tuple[int, ...]], *, tied: bool = False, base: Any = None, model: str = "llama", **fields):
    return plan_changes(
        parse(**fields), infos(shapes), base=base or base_tensors(), base_config={"model_type": model}, tied=tied
    )


def refusal(code: Code, call: Any, *arguments: Any, **options: Any) -> SpearError:
    with pytest.raises(SpearError) as caught:
        call(*arguments, **options)
    assert caught.value.code is code, caught.value
    return caught.value


# --- the configuration ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["LOHA", "LOKR", "ADALORA", "IA3", "VERA", "PROMPT_TUNING", "PREFIX_TUNING", "OFT", "XLORA", "FOURIERFT"]
)
def test_other_kinds_of_adapters_are_refused_by_name(kind):
    error = refusal(Code.ADAPTER_UNSUPPORTED, parse, peft_type=kind)
    assert kind in error.message
    assert error.names["file"] == "adapter_config.json"


@pytest.mark.parametrize(
    "fields",
    [
        {"trainable_token_indices": [1, 2]}, {"trainable_token_indices": {"embed_tokens": [3]}},
        {"layer_replication": [[0, 4], [2, 5]]}, {"target_parameters": ["experts.gate_up_proj"]},
        {"alora_invocation_tokens": [5]}, {"use_qalora": True}, {"use_bdlora": {"nblocks": 2}},
        {"arrow_config": {"top_k": 3}}, {"kasa_config": {"beta": 1}}, {"monteclora_config": {"num_samples": 4}},
        {"velora_config": {"scale": 1.0}}, {"megatron_config": {"a": 1}}, {"init_lora_weights": "pissa"},
        {"init_lora_weights": "pissa_niter_16"}, {"init_lora_weights": "olora"}, {"init_lora_weights": "loftq"},
        {"init_lora_weights": "corda"}, {"init_lora_weights": "lora_ga"}, {"init_lora_weights": "mica"},
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_applied_is_refused_by_field(fields):
    error = refusal(Code.ADAPTER_UNSUPPORTED, parse, **fields)
    assert error.names["field"] == next(iter(fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"peft_type": None}, {"peft_type": 3}, {"lora_alpha": "8"}, {"lora_alpha": True}, {"lora_alpha": None},
        {"lora_alpha": 1e300}, {"use_dora": "yes"}, {"use_rslora": 1}, {"alpha_pattern": ["q"]},
        {"alpha_pattern": {"q": "3"}}, {"base_model_name_or_path": 4},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_configuration_is_refused_by_field(fields):
    assert refusal(Code.ADAPTER_INVALID, parse, **fields).names["field"] in str(fields)


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b'{"r": NaN}', b'{"r": 1, "r": 2}', b"\xff"])
def test_what_is_no_json_object_is_refused(raw):
    assert refusal(Code.ADAPTER_INVALID, parse_adapter_config, raw).names["file"] == "adapter_config.json"


@pytest.mark.parametrize("key", ["(a+)+$", "(a|a)*", "(.*)*b", ".*.*.*.*x", "(", "a" * 300, "(?=x)", "a{1,99}", "[^]"])
def test_a_pattern_that_could_take_long_is_never_run(key):
    assert refusal(Code.ADAPTER_UNSUPPORTED, parse, alpha_pattern={key: 1}).names["field"] == "alpha_pattern"


@pytest.mark.parametrize(
    ("patterns", "module", "alpha"),
    [
        ({"q_proj": 1}, "model.layers.0.self_attn.q_proj", 1),
        ({"q_proj": 1}, "model.layers.0.self_attn.xq_proj", 4),
        ({"^model.layers.0.self_attn.q_proj": 2}, "model.layers.0.self_attn.q_proj", 2),
        ({"^layers.0.self_attn.q_proj": 2}, "model.layers.0.self_attn.q_proj", 4),
        ({"layers.1.*": 3, "q_proj": 5}, "model.layers.1.self_attn.q_proj", 3),
        ({r"layers\.[0-1]\.self_attn\.(q|k)_proj": 6}, "model.layers.1.self_attn.k_proj", 6),
        ({r"layers\.\d+\.mlp\.up_proj": 7}, "model.layers.12.mlp.up_proj", 7),
    ],
)
def test_patterns_match_as_in_peft(patterns, module, alpha):
    from peft.utils.other import get_pattern_key

    assert patterns.get(get_pattern_key(patterns, module), 4) == alpha
    assert parse(alpha_pattern=patterns).scaling(module, rank=4) == alpha / 4
    assert parse(alpha_pattern=patterns, use_rslora=True).scaling(module, rank=4) == alpha / 2


def test_peft_s_own_defaults_hold_where_the_config_is_silent():
    config = parse_adapter_config(b'{"peft_type": "LORA"}')
    assert (config.alpha, config.rank_stabilised, config.dora, config.trained_on) == (8, False, False, None)


# --- the tensors ------------------------------------------------------------------------------------------------------


def test_factors_are_put_together_by_the_tensor_that_they_change():
    changes = plan(PLAIN)
    assert changes.keys() == {f"{Q}.weight", f"{UP}.weight"}
    assert [(change.rank, change.transposed) for change in changes.values()] == [(2, False)] * 2


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("base_model.model.model.layers.0", "model.layers.0"), ("model.layers.0", "model.layers.0"),
        ("base_model.model.layers.0", "model.layers.0"), ("base_model.model.transformer.layers.0", "layers.0"),
        ("base_model.model.model.language_model.layers.0", "language_model.model.layers.0"),
        ("base_model.model.model.language_model.layers.0", "model.layers.0"),
    ],
)  # fmt: skip
def test_names_of_modules_and_of_checkpoints_may_differ_in_front(theirs, ours):
    shapes = {f"{theirs}.q.lora_A.weight": (2, 8), f"{theirs}.q.lora_B.weight": (8, 2)}
    base = infos({f"{ours}.q.weight": (8, 8), f"{ours}.k.weight": (8, 8)}, dtype="BF16")
    assert plan(shapes, base=base).keys() == {f"{ours}.q.weight"}


def without(name: str) -> dict[str, tuple[int, ...]]:
    return {key: shape for key, shape in PLAIN.items() if not key.endswith(name)}


A, B = (f"base_model.model.{Q}.lora_{part}.weight" for part in "AB")
REFUSALS: dict[str, tuple[Code, dict[str, tuple[int, ...]], dict[str, Any], str]] = {
    "no tensor": (Code.WEIGHTS_MISSING, {}, {}, ""),
    "module missing": (
        Code.TENSOR_MISSING, {A.replace("q_proj", "qkv"): (2, 8), B.replace("q_proj", "qkv"): (8, 2)}, {}, "qkv.weight",
    ),
    "classifier": (Code.TENSOR_MISSING, {**PLAIN, "base_model.model.score.weight": (3, 8)}, {}, "score.weight"),
    "no bias": (Code.TENSOR_MISSING, {**PLAIN, f"base_model.model.{Q}.lora_B.bias": (8,)}, {}, f"{Q}.bias"),
    "A alone": (Code.ADAPTER_INVALID, without("q_proj.lora_B.weight"), {}, f"{Q}.weight"),
    "B alone": (Code.ADAPTER_INVALID, without("q_proj.lora_A.weight"), {}, f"{Q}.weight"),
    "ranks": (Code.ADAPTER_INVALID, {A: (2, 8), B: (8, 3)}, {}, B),
    "rank 0": (Code.ADAPTER_INVALID, {A: (0, 8), B: (8, 0)}, {}, B),
    "rank": (Code.LIMIT_EXCEEDED, {A: (1025, 8), B: (8, 1025)}, {}, A),
    "inputs": (Code.SHAPE_MISMATCH, {A: (2, 9), B: (8, 2)}, {}, f"{Q}.weight"),
    "outputs": (Code.SHAPE_MISMATCH, {A: (2, 8), B: (9, 2)}, {}, f"{Q}.weight"),
    "turned": (
        Code.SHAPE_MISMATCH, {A.replace(Q, UP): (2, 16), B.replace(Q, UP): (8, 2)}, {}, f"{UP}.weight",
    ),
    "norm": (Code.SHAPE_MISMATCH, {"base_model.model.model.norm.weight": (9,)}, {}, "model.norm.weight"),
    "convolution": (Code.ADAPTER_UNSUPPORTED, {A: (2, 8, 1, 1), B: (8, 2, 1, 1)}, {}, A),
    "no magnitude": (Code.ADAPTER_INVALID, PLAIN, {"use_dora": True}, f"{Q}.weight"),
    "magnitude": (
        Code.ADAPTER_INVALID, {A: (2, 8), B: (8, 2), A.replace("A.weight", "magnitude_vector"): (8,)}, {}, f"{Q}.weight"
    ),
    "magnitudes": (
        Code.SHAPE_MISMATCH, {A: (2, 8), B: (8, 2), A.replace("A.weight", "magnitude_vector"): (9,)},
        {"use_dora": True}, f"{Q}.weight",
    ),
    "rows": (
        Code.VOCABULARY_MISMATCH, {"base_model.model.model.embed_tokens.weight": (12, 8)}, {},
        "model.embed_tokens.weight",
    ),
    "head rows": (Code.VOCABULARY_MISMATCH, {"base_model.model.lm_head.weight": (12, 8)}, {}, "lm_head.weight"),
    "tokens": (
        Code.ADAPTER_UNSUPPORTED, {**PLAIN, "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta":
        (1, 8)}, {}, "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta",
    ),
    "other factors": (
        Code.ADAPTER_UNSUPPORTED, {**PLAIN, f"base_model.model.{Q}.lora_diag": (2,)}, {},
        f"base_model.model.{Q}.lora_diag",
    ),
    "bias of A": (
        Code.ADAPTER_UNSUPPORTED, {**PLAIN, A.replace("weight", "bias"): (2,)}, {}, A.replace("weight", "bias"),
    ),
    "twice": (Code.ADAPTER_INVALID, {**PLAIN, A.replace("lora_A", "lora_A.default"): (2, 8)}, {},
              A.replace("lora_A", "lora_A.default")),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_tensors_that_do_not_fit_are_refused_by_name(case):
    code, shapes, fields, tensor = REFUSALS[case]
    error = refusal(code, plan, shapes, **fields)
    assert error.names["file"] == "adapter_model.safetensors"
    assert error.names.get("tensor", "").endswith(tensor)


def test_a_bias_without_its_factor_is_refused():
    base = base_tensors(**{f"{Q}.bias": (8,)})
    refusal(Code.ADAPTER_INVALID, plan, {f"base_model.model.{Q}.lora_B.bias": (8,)}, base=base)
    shift = plan({A: (2, 8), B: (8, 2), B.replace("weight", "bias"): (8,)}, base=base)[f"{Q}.bias"]
    assert (shift.rank, shift.module) == (2, Q)


@pytest.mark.parametrize("dtype", ["I8", "F8_E4M3", "U8"])
def test_quantised_factors_and_bases_are_refused(dtype):
    arguments = {"base_config": {"model_type": "llama"}, "tied": False}
    base = base_tensors() | infos({f"{Q}.weight": (8, 8)}, dtype=dtype)
    error = refusal(Code.DTYPE_UNSUPPORTED, plan_changes, parse(), infos(PLAIN), base=base, **arguments)
    assert error.names["tensor"] == f"{Q}.weight"
    refusal(
        Code.DTYPE_UNSUPPORTED, plan_changes, parse(), infos(PLAIN, dtype=dtype), base=base_tensors(), **arguments
    )


EMBEDDING = "base_model.model.model.embed_tokens"
BOTH = {f"{EMBEDDING}.weight": (10, 8), "base_model.model.lm_head.weight": (10, 8)}


@pytest.mark.parametrize(
    ("shapes", "fields", "refused"),
    [
        ({"base_model.model.lm_head.weight": (10, 8)}, {}, True),
        ({"base_model.model.lm_head.lora_A.weight": (2, 8), "base_model.model.lm_head.lora_B.weight": (10, 2)}, {}, 1),
        ({f"{EMBEDDING}.weight": (10, 8)}, {}, True),
        ({f"{EMBEDDING}.weight": (10, 8)}, {"ensure_weight_tying": True}, False),
        (BOTH, {"ensure_weight_tying": True}, False),
        (BOTH, {}, True),
        ({f"{EMBEDDING}.lora_embedding_A": (2, 10), f"{EMBEDDING}.lora_embedding_B": (8, 2)}, {}, False),
    ],
    ids=["head", "head factors", "embedding", "embedding tied", "both tied", "both", "embedding factors"],
)
def test_a_tied_head_and_its_embedding_are_one(shapes, fields, refused):
    if refused:
        refusal(Code.TIED_HEAD_MISMATCH, plan, shapes, tied=True, **fields)
    else:
        assert plan(shapes, tied=True, **fields).keys() == {"model.embed_tokens.weight"}
    assert plan(shapes, **fields)


def test_two_names_of_one_tensor_are_refused():
    factors = {"lora_A.weight": (2, 8), "lora_B.weight": (8, 2)}
    one, two = ({f"{first}.layers.0.q.{part}": shape for part, shape in factors.items()} for first in "ab")
    base = infos({"layers.0.q.weight": (8, 8), "norm.weight": (8,)}, dtype="BF16")
    assert plan(one, base=base).keys() == plan(two, base=base).keys() == {"layers.0.q.weight"}
    error = refusal(Code.ADAPTER_INVALID, plan, {**one, **two}, base=base)
    assert "layers.0.q.weight twice" in error.message


def test_conv1d_is_known_by_the_model_type():
    square = {f"base_model.model.{Q}.lora_A.weight": (2, 8), f"base_model.model.{Q}.lora_B.weight": (8, 2)}
    assert plan(square, model="gpt2")[f"{Q}.weight"].transposed
    assert not plan(square, model="llama")[f"{Q}.weight"].transposed
    turned = {f"base_model.model.{UP}.lora_A.weight": (2, 16), f"base_model.model.{UP}.lora_B.weight": (8, 2)}
    assert plan(turned, model="gpt2")[f"{UP}.weight"].transposed


# --- heads ------------------------------------------------------------------------------------------------------------


def base_head(*, files: tuple[RemoteFile, ...] = (), **config: Any) -> Head:
    tensors = {name: TensorInfo(name, dtype, shape, "m", 0, 8) for name, (dtype, shape) in TENSORS.items()}
    pin = Pin("org/base", "main", "0" * 40, private=False, gated=False, license=None, files=files)
    return Head(pin, {**CONFIG, **config}, tensors, (), ())


def adapter_head(*, shapes: dict[str, tuple[int, ...]] = PLAIN, files: tuple[str, ...] = (), **fields: Any) -> Head:
    remote = tuple(RemoteFile(path, 1, "git:" + "0" * 40) for path in files)
    pin = Pin("org/lora", "main", "1" * 40, private=False, gated=False, license=None, files=remote)
    return Head(pin, {}, infos(shapes), (), (), parse(**fields))


def test_an_applied_adapter_is_admitted_as_the_base():
    base = base_head()
    head = applied(adapter_head(), base)
    assert head.changed == {f"{Q}.weight", f"{UP}.weight"}
    found = admit([base, head])
    assert [tensor.name for tensor in found.tensors] == list(TENSORS)
    assert found.warnings == ()


def test_a_misfit_names_the_adapters_repository():
    error = refusal(Code.SHAPE_MISMATCH, applied, adapter_head(shapes={A: (2, 9), B: (8, 2)}), base_head())
    assert (error.names["repo"], error.names["tensor"]) == ("org/lora", f"{Q}.weight")
    assert error.message.startswith("org/lora: ")


def test_what_a_person_should_know_is_said():
    base = base_head()
    shapes = {f"{EMBEDDING}.lora_embedding_A": (2, 10), f"{EMBEDDING}.lora_embedding_B": (8, 2)}
    fields = {"base_model_name_or_path": "Org/other", "some_new_field": {"x": 1}, "unset": None}
    head = applied(adapter_head(shapes=shapes, files=("model.safetensors",), **fields), base)
    first, *rest = adapter_warnings(head, base)
    assert first == "org/lora is a LoRA adapter: it is applied to org/base, of which it changes 1 of 4 tensors"
    for words in ("head that org/base ties", "model.safetensors", "'Org/other'", "'some_new_field'"):
        assert sum(words in warning for warning in rest) == 1
    assert len(rest) == 4
    assert adapter_warnings(base, base) == ()
    named = applied(adapter_head(base_model_name_or_path="ORG/base"), base)
    assert len(adapter_warnings(named, base)) == 1


def test_a_tokenizer_is_a_map_of_tokens():
    assert ships_tokenizer(adapter_head(files=("tokenizer.json",)).pin)
    assert not ships_tokenizer(adapter_head(files=("tokenizer_config.json", "README.md")).pin)


def test_digests_of_applied_files_depend_on_all_that_their_bits_depend_on():
    base = {"a.safetensors": "sha256:1", "b.safetensors": "sha256:2", "config.json": "git:3", "README.md": "git:9"}
    adapter = {"adapter_config.json": "git:4", "adapter_model.safetensors": "sha256:5", "README.md": "git:8"}
    found = applied_digests(base=base, adapter=adapter)
    assert found.keys() == {"a.safetensors", "b.safetensors"}
    assert len({*found.values(), *base.values()}) == 6
    for changed in ({"config.json": "git:0"}, {"a.safetensors": "sha256:0"}):
        assert applied_digests(base=base | changed, adapter=adapter)["a.safetensors"] != found["a.safetensors"]
    for changed in ({"adapter_config.json": "git:0"}, {"adapter_model.safetensors": "sha256:0"}):
        assert applied_digests(base=base, adapter=adapter | changed)["b.safetensors"] != found["b.safetensors"]
    assert applied_digests(base=base | {"README.md": "x"}, adapter=adapter | {"README.md": "y"}) == found
