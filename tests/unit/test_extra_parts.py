"""Whole parts that one model has and the others lack (vision towers, prediction heads): carried over and told."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from app.errors import Code, SpearError
from app.hub.adapter_heads import applied
from app.hub.adapters import parse_adapter_config
from app.hub.admission import admit, part_of
from app.hub.headers import TensorInfo
from app.hub.heads import idle_heads
from app.hub.inspect import Head
from app.hub.pins import Pin
from tests.fixtures.adapters import make_adapter
from tests.fixtures.checkpoints import CONFIG, TENSORS
from tests.fixtures.models import make_checkpoint
from tests.unit.test_merge_methods import make_task, run, tensors
from worker.checkpoints.open import open_model
from worker.checkpoints.reader import Checkpoint

TOWER = {"model.visual.blocks.0.attn.qkv.weight": (8, 8), "model.visual.merger.mlp.0.weight": (4, 8)}
BEHIND = {"model.layers.1.eh_proj.weight": (8, 16), "model.layers.1.self_attn.q_proj.weight": (8, 8)}
MTP = {"mtp.layers.0.proj.weight": (8, 8), "mtp.lm_head.weight": (10, 8)}


def pin(repo: str) -> Pin:
    return Pin(repo, "main", "0" * 40, private=False, gated=False, license=None, files=())


def head(repo: str, extra: dict[str, tuple[int, ...]], **config) -> Head:
    named = {name: ("BF16", shape) for name, shape in extra.items()}
    infos = {
        name: TensorInfo(name, dtype, shape, "model.safetensors", 0, 8)
        for name, (dtype, shape) in (TENSORS | named).items()
    }
    return Head(pin(repo), CONFIG | config, infos, (), ())


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("model.layers.0.mlp.up_proj.weight", None), ("model.layers.60.mlp.up_proj.weight", None),
        ("model.layers.61.mlp.experts.0.up_proj.weight", "model.layers.61"), ("model.embed_tokens.weight", None),
        ("model.norm.weight", None), ("lm_head.weight", None), ("language_model.lm_head.weight", None),
        ("language_model.model.layers.3.q.weight", None), ("visual.blocks.3.attn.weight", "visual"),
        ("model.visual.blocks.70.attn.qkv.weight", "model.visual"), ("mtp.layers.0.q.weight", "mtp"),
        ("model.language_model.layers.62.q.weight", "model.language_model.layers.62"),
        ("transformer.h.61.attn.c_attn.weight", "transformer.h.61"),
        ("model.vision_tower.a.b.weight", "model.vision_tower"),
    ],
)  # fmt: skip
def test_the_part_that_a_name_belongs_to(name, part):
    assert part_of(name, layers=61) == part


@pytest.mark.parametrize("extra", [TOWER, BEHIND, MTP], ids=["tower", "layer behind the last", "mtp"])
@pytest.mark.parametrize("turned", [False, True])
def test_a_part_of_one_model_is_carried_over_and_told(extra, turned):
    heads = [head("org/base", extra), head("org/expert", {})]
    found = admit(heads[::-1] if turned else heads)
    assert extra.keys() <= {tensor.name for tensor in found.tensors}
    assert [words for words in found.warnings if "carried over" in words]


def test_half_a_part_and_a_layer_that_counts_are_refused():
    with pytest.raises(SpearError) as caught:
        admit([head("org/base", TOWER), head("org/expert", dict([next(iter(TOWER.items()))]))])
    assert (caught.value.code, caught.value.names["tensor"]) == (Code.TENSOR_MISSING, list(TOWER)[1])
    with pytest.raises(SpearError) as caught:
        admit([head("org/base", BEHIND, num_hidden_layers=2), head("org/expert", {}, num_hidden_layers=2)])
    assert caught.value.code is Code.TENSOR_MISSING


def test_only_the_language_models_own_head_is_tied():
    shapes = {
        "model.embed_tokens.weight": (10, 8), "lm_head.weight": (10, 8), "mtp.lm_head.weight": (10, 8),
        "model.layers.1.lm_head.weight": (10, 8),
    }  # fmt: skip
    assert idle_heads({"tie_word_embeddings": True}, shapes) == ["lm_head.weight"]
    inner = {"language_model.model.embed_tokens.weight": (10, 8), "language_model.lm_head.weight": (10, 8)}
    assert idle_heads({"tie_word_embeddings": True}, inner) == ["language_model.lm_head.weight"]


def test_an_adapter_on_a_tied_base_drops_the_tied_head_alone():
    base = head("org/base", MTP | {"lm_head.weight": (10, 8)})
    config = parse_adapter_config(json.dumps({"peft_type": "LORA", "r": 2, "init_lora_weights": True}).encode())
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    factors = {f"{module}.lora_A.weight": (2, 8), f"{module}.lora_B.weight": (8, 2)}
    infos = {name: TensorInfo(name, "F32", shape, "a", 0, 64) for name, shape in factors.items()}
    found = applied(Head(pin("org/lora"), {}, infos, (), (), adapter=config), base)
    assert base.tensors.keys() - found.tensors.keys() == {"lm_head.weight"}


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A base with a tower and a layer behind the last; an expert and an adapter without them."""
    folder = tmp_path_factory.mktemp("extended")
    base = make_checkpoint(folder / "base", seed=1, max_shard_size="1GB")
    expert = make_checkpoint(folder / "expert", seed=2, like=base, max_shard_size="1GB")
    adapter = make_adapter(base, folder / "adapter")
    stored = load_file(base / "model.safetensors")
    more = {"model.visual.blocks.0.w.weight": torch.randn(7, 5), "model.layers.2.mlp.up_proj.weight": torch.randn(3, 3)}
    save_file(stored | {n: t.bfloat16() for n, t in more.items()}, base / "model.safetensors", {"format": "pt"})
    return base, expert, adapter, list(more)


@pytest.mark.parametrize("method", [{"name": "linear"}, {"name": "ties", "density": 0.5}, {"name": "wise_ft"}])
def test_the_merged_model_has_them_byte_for_byte(tmp_path, extended, method):
    base, expert, _, more = extended
    result, merged = run(make_task(tmp_path, [base, expert], method))
    for name in more:
        assert torch.equal(merged[name], tensors(base)[name])
        assert result.operations[name] == "carried_over"


def test_an_adapter_keeps_them(extended):
    base, _, adapter, more = extended
    with open_model(adapter, base=base) as applied_to, Checkpoint.open(base) as plain:
        for name in more:
            assert torch.equal(applied_to.read(name), plain.read(name))


@pytest.mark.parametrize("method", [
    {"name": "linear"}, {"name": "ties", "density": 0.4}, {"name": "dare_ties", "density": 0.5}, {"name": "karcher"},
    {"name": "della", "density": 0.5}, {"name": "sce", "select_topk": 0.5}, {"name": "breadcrumbs", "density": 0.5},
], ids=lambda method: method["name"])  # fmt: skip
def test_how_the_inputs_are_sharded_changes_no_byte(tmp_path, method):
    """The same tensors in one file, in many, and in another order."""
    whole = [make_checkpoint(tmp_path / "one" / "base", seed=1, max_shard_size="1GB")]
    whole += [make_checkpoint(tmp_path / "one" / f"e{i}", seed=i, like=whole[0], max_shard_size="1GB") for i in (2, 3)]
    split = [resharded(path, tmp_path / "many" / path.name, parts=3 + i) for i, path in enumerate(whole)]
    _, first = run(make_task(tmp_path / "a", whole, method))
    _, second = run(make_task(tmp_path / "b", split, method))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    files = [{f.name: f.read_bytes() for f in (tmp_path / x / "output").glob("*.safetensors")} for x in "ab"]
    assert files[0] == files[1]


def resharded(path, to, *, parts: int):
    """The same model in so many files, its tensors dealt out from the last."""
    to.mkdir(parents=True)
    for file in path.iterdir():
        if not file.name.startswith("model.safetensors"):
            (to / file.name).write_bytes(file.read_bytes())
    stored = load_file(path / "model.safetensors")
    names = sorted(stored, reverse=True)
    where = {}
    for part in range(parts):
        file = f"model-{part + 1:05}-of-{parts:05}.safetensors"
        save_file({name: stored[name] for name in names[part::parts]}, to / file, {"format": "pt"})
        where |= dict.fromkeys(names[part::parts], file)
    (to / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return to
