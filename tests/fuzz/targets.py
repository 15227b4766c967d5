"""What is fuzzed: each target makes one input from a seeded source, feeds it, and lets `SpearError` alone come out."""

import json
import math
from collections.abc import Callable
from random import Random
from typing import Any

import yaml

from app.errors import SpearError
from app.hub.adapters import parse_adapter_config
from app.hub.headers import DTYPE_BITS, header_size, merge_shards, parse_header, parse_index
from app.hub.vocabulary import parse_vocabulary
from app.recipes import parse_recipe
from app.recipes.mergekit import MergekitForm, written
from app.recipes.mergekit.contracts import CONTRACTS
from app.recipes.recipe import METHODS, parse
from tests.fuzz.bytes_of import ODD, mutated, varied

F = "model.safetensors"
INDEX = "model.safetensors.index.json"
MAX_TENSORS = 1_000
MAX_MESSAGE = 20_000
WEIGHTS = {"weight": 0.5, "density": 0.5, "gamma": 0.01, "epsilon": 0.1}
EXTRA = {"slerp": {"t": 0.5}, "nearswap": {"t": 0.01}}
ALONE = ("slerp", "nearswap", "arcee_fusion", "passthrough", "spear", "wise_ft", "lines", "dg_hard")


def header(random: Random) -> str:
    """A safetensors header: right, wrong in its structure, or wounded in its bytes."""
    entries, reached = _entries(random)
    if random.random() < 0.6:
        entries = varied(entries, random)
    raw = json.dumps(entries).encode()
    if random.random() < 0.5:
        raw = mutated(raw, random)
    first8 = len(raw).to_bytes(8, "little")
    if random.random() < 0.1:
        first8 = mutated(first8, random)
    return _outcome(lambda: _read_header(first8, raw, size=8 + len(raw) + reached + random.choice([0, 0, 0, -1, 8])))


def _read_header(first8: bytes, raw: bytes, *, size: int) -> None:
    """What both sides do with the first bytes of a file; what comes out has to hold together."""
    header_size(first8, file=F, limit=100_000_000)
    tensors = parse_header(raw, file=F, file_size=size, max_tensors=MAX_TENSORS)
    at = 8 + len(raw)
    for name, tensor in tensors.items():
        assert (tensor.name, tensor.offset) == (name, at)
        assert tensor.nbytes * 8 == tensor.elements * DTYPE_BITS[tensor.dtype]
        at += tensor.nbytes
    assert at == size


def _entries(random: Random) -> tuple[dict[str, Any], int]:
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}} if random.random() < 0.7 else {}
    reached = 0
    for number in range(random.randint(0, 6)):
        dtype, shape = random.choice(sorted(DTYPE_BITS)), [random.randint(0, 9) for _ in range(random.randint(0, 4))]
        shape += [8] * (DTYPE_BITS[dtype] < 8)
        size = math.prod(shape) * DTYPE_BITS[dtype] // 8
        begin = reached + (random.choice([-8, 8, 1]) if random.random() < 0.03 else 0)
        entries[f"model.layers.{number}.w"] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, begin + size]}
        reached += size
    return entries, reached


def index(random: Random) -> str:
    """An index and the shards that it may or may not agree with."""
    names = [f"t{number}" for number in range(random.randint(1, 5))]
    files = ["s1.safetensors", "s2.safetensors"]
    body: Any = {"metadata": {"total_size": 8}, "weight_map": {name: random.choice(files) for name in names}}
    shards = {file: [name for name in names if body["weight_map"][name] == file] for file in files}
    if random.random() < 0.7:
        body = varied(body, random)
    if random.random() < 0.3:
        shards = varied(shards, random)
    raw = json.dumps(body).encode()
    raw = mutated(raw, random) if random.random() < 0.4 else raw
    return _outcome(lambda: _read_index(raw, shards, files))


def _read_index(raw: bytes, shards: Any, files: list[str]) -> None:
    weight_map = parse_index(raw, file=INDEX, files=files)
    assert set(weight_map.values()) <= set(files)
    found = {file: shards.get(file) if isinstance(shards, dict) else None for file in files}
    merge_shards(
        {file: _tensors(names, file) for file, names in found.items() if isinstance(names, list)},
        index=weight_map, file=INDEX,
    )  # fmt: skip


def _tensors(names: list[Any], file: str) -> Any:
    known = dict.fromkeys(name for name in names if isinstance(name, str) and name[:512].isprintable() and name)
    entries = {name: {"dtype": "U8", "shape": [1], "data_offsets": [i, i + 1]} for i, name in enumerate(known)}
    raw = json.dumps(entries).encode()
    return parse_header(raw, file=file, file_size=8 + len(raw) + len(entries), max_tensors=MAX_TENSORS)


def companions(random: Random) -> str:
    """An adapter's configuration, or a tokenizer."""
    adapter: Any = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "init_lora_weights": True,
                    "alpha_pattern": {"q.*": 2}}  # fmt: skip
    tokenizer: Any = {"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": [{"content": "<s>", "id": 2}]}
    which = random.random() < 0.5
    body = varied(adapter if which else tokenizer, random)
    raw = json.dumps(body).encode()
    raw = mutated(raw, random) if random.random() < 0.4 else raw
    if which:
        return _outcome(lambda: parse_adapter_config(raw).scaling("model.layers.0.q_proj", rank=8))
    return _outcome(lambda: parse_vocabulary(raw, repo="org/m", file="tokenizer.json"))


def recipe(random: Random) -> str:
    """A recipe as JSON."""
    name = random.choice(sorted(METHODS))
    fields = METHODS[name].model_fields
    parts = {key: value for key, value in WEIGHTS.items() if key in METHODS[name].per_expert}
    body: Any = {
        "base": {"repo": "org/base"}, "method": {"name": name, **EXTRA.get(name, {})},
        "experts": [{"repo": f"org/e{i}", **parts} for i in range(1 if name in ALONE else 2)],
        "target": {"repo": "org/out"}, "output": {"dtype": "bfloat16"}, "labels": {"team": "risk"},
    }  # fmt: skip
    for field in random.sample(sorted(fields), k=min(len(fields), random.randint(0, 3))):
        if field != "name":
            body["method"][fields[field].alias or field] = random.choice(ODD)
    if random.random() < 0.9:
        body = varied(body, random)
    return _outcome(lambda: parse_recipe(body).model_dump_json())


def mergekit(random: Random) -> str:
    """A mergekit YAML in a form."""
    body = _yaml(random)
    body = varied(body, random) if random.random() < 0.8 else body
    text = yaml.safe_dump(body, sort_keys=False, allow_unicode=random.random() < 0.5)
    if random.random() < 0.4:
        text = mutated(text.encode("utf-8", "replace"), random).decode("utf-8", "replace")
    return _outcome(lambda: _translate(text))


def _yaml(random: Random) -> Any:
    method = random.choice(["linear", "slerp", "ties", "dare_ties", "della", "sce", "passthrough", "model_stock"])
    weight = random.choice([0.5, [0, 0.5, 1], [{"filter": "mlp", "value": 0.3}, {"value": [0, 1]}]])
    contract = CONTRACTS[method]
    own = {name: {"weight": weight, "scale": 0.5}.get(name, 0.4) for name in contract.own}
    models = [{"model": name, "parameters": own} for name in ("org/a", "org/b@v1", "org/c+org/lora")]
    models = [{"model": "org/base"}, {"model": "org/a"}] if contract.most == 2 else models[: contract.most]
    whole: Any = {
        "merge_method": method, "dtype": "bfloat16", "tokenizer_source": "base",
        "parameters": {"int8_mask": True} | ({"t": weight} if method == "slerp" else {}),
    } | ({} if method == "passthrough" else {"base_model": "org/base"})  # fmt: skip
    if random.random() < 0.5:
        return whole | {"models": models}
    return whole | {"slices": [{"sources": [model | {"layer_range": [0, 4]} for model in models]}]}


def _translate(text: str) -> None:
    with written(parse(MergekitForm, {"mergekit": text, "target": {"repo": "org/out"}})) as found:
        found.model_dump_json()


def _outcome(call: Callable[[], Any]) -> str:
    """The code of the refusal, or `ok`; a refusal has to be fit to be shown, and to be stored."""
    try:
        call()
    except SpearError as error:
        if len(error.message) > MAX_MESSAGE:
            raise ValueError("a message without bound") from error
        json.dumps(error.names, default=str).encode()
        return str(error.code)
    return "ok"


TARGETS: dict[str, Callable[[Random], str]] = {
    "header": header, "index": index, "companions": companions, "recipe": recipe, "mergekit": mergekit,
}  # fmt: skip
