"""The head of a checkpoint on the Hub: config and safetensors headers, read by range requests, never the weights."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from app.errors import Code, SpearError
from app.hub.adapters import ADAPTER_CONFIG, ADAPTER_WEIGHTS, AdapterConfig, parse_adapter_config
from app.hub.client import Hub
from app.hub.headers import LENGTH_BYTES, TensorInfo, header_size, merge_shards, parse_header, parse_index
from app.hub.pins import Pin, RemoteFile
from app.hub.strictjson import check_values, parse_object, shown
from app.settings import Settings

CONFIG = "config.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
COMPANIONS = (
    CONFIG, "generation_config.json", TOKENIZER_CONFIG, "tokenizer.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "*.model", "*.tiktoken", "chat_template.*",
    "preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json",
    "LICENSE*", "NOTICE*", "README.md",
)  # fmt: skip
"""Patterns of the files that go with the weights, at the top of a repository."""
COUNTS = (
    "num_hidden_layers", "n_layer", "num_attention_heads", "n_head", "num_key_value_heads", "hidden_size", "n_embd",
    "vocab_size",
)  # fmt: skip
MAX_COUNT = 2**40

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_HEADER_READERS = 8


@dataclass(frozen=True)
class Head:
    """What is known of a checkpoint without its weights. `files` is what has to be downloaded to use it.

    `adapter` is there if this is a LoRA adapter: `config` is empty then and `tensors` are the adapter's own, until
    `app.hub.adapter_heads.applied` gives it those of its base.
    """

    pin: Pin
    config: dict[str, Any]
    tensors: dict[str, TensorInfo]
    weights: tuple[RemoteFile, ...]
    files: tuple[RemoteFile, ...]
    adapter: AdapterConfig | None = None
    changed: frozenset[str] = frozenset()
    """the base's tensors that the adapter changes"""

    @property
    def repo(self) -> str:
        return self.pin.repo


def inspect(hub: Hub, pin: Pin, *, settings: Settings, adapters: bool = False) -> Head:
    """Reads and checks the head; each refusal names the repository and the file, and the tensor where there is one.

    With `adapters`, a repository that holds a LoRA adapter is read as one, also where a whole model lies beside it: so
    does transformers. Raises `PICKLE_ONLY`, `WEIGHTS_MISSING`, `CONFIG_INVALID`, `REMOTE_CODE`, `QUANTIZED_WEIGHTS`,
    `INDEX_INVALID`, `HEADER_INVALID`, `LIMIT_EXCEEDED`, `ADAPTER_INVALID`, `ADAPTER_UNSUPPORTED`.
    """
    try:
        look = _inspect_adapter if adapters and _holds_adapter(pin) else _inspect
        return look(hub, pin, settings=settings)
    except SpearError as error:
        if "repo" in error.names:
            raise
        raise SpearError(error.code, f"{pin.repo}: {error.message}", repo=pin.repo, **error.names) from None


def read_small(hub: Hub, pin: Pin, file: RemoteFile, *, settings: Settings) -> bytes:
    """The whole of a file that must be small: config, index, tokenizer. All of them are JSON: its size is bounded."""
    limit = settings.max_small_file_bytes
    if file.size > limit:
        words = f"{file.path} has {file.size} bytes; {limit} are allowed"
        raise SpearError(
            Code.LIMIT_EXCEEDED, f"{pin.repo}: {words}", repo=pin.repo, file=file.path, limit="max_small_file_bytes"
        )
    raw = hub.read(pin.repo, pin.commit, file.path, size=file.size) if file.size else b""
    check_values(raw, file=file.path, limit=settings.max_json_values)
    return raw


def _inspect(hub: Hub, pin: Pin, *, settings: Settings) -> Head:
    _refuse_pickles(pin)
    config = _config(hub, pin, settings=settings)
    _refuse_tokenizer_code(hub, pin, settings=settings)
    single, index = pin.file(SINGLE), pin.file(INDEX)
    # as transformers does: a single file goes before an index, and nothing else (originals, consolidated) counts
    if single is not None:
        weights: tuple[RemoteFile, ...] = (single,)
        tensors = _headers(hub, pin, weights, settings=settings)[SINGLE]
        extra: tuple[RemoteFile, ...] = ()
    else:
        assert index is not None
        names = {file.path: file for file in pin.files}
        weight_map = parse_index(
            read_small(hub, pin, index, settings=settings), file=INDEX, files=names, max_name=settings.max_name_length
        )
        weights = tuple(names[shard] for shard in dict.fromkeys(weight_map.values()))
        tensors = merge_shards(_headers(hub, pin, weights, settings=settings), index=weight_map, file=INDEX)
        extra = (index,)
    if not tensors:
        raise SpearError(Code.WEIGHTS_MISSING, "the safetensors files hold no tensor", file=weights[0].path)
    companions = tuple(file for file in pin.files if _goes_along(file.path))
    return Head(pin, config, tensors, weights, (*companions, *extra, *weights))


def _holds_adapter(pin: Pin) -> bool:
    return pin.file(ADAPTER_CONFIG) is not None and pin.file(ADAPTER_WEIGHTS) is not None


def _inspect_adapter(hub: Hub, pin: Pin, *, settings: Settings) -> Head:
    config, weights = pin.file(ADAPTER_CONFIG), pin.file(ADAPTER_WEIGHTS)
    assert config is not None
    assert weights is not None
    adapter = parse_adapter_config(
        read_small(hub, pin, config, settings=settings), max_depth=settings.max_json_depth
    )
    _refuse_tokenizer_code(hub, pin, settings=settings)
    tensors = _headers(hub, pin, (weights,), settings=settings)[ADAPTER_WEIGHTS]
    companions = tuple(file for file in pin.files if file.path != CONFIG and _goes_along(file.path))
    return Head(pin, {}, tensors, (weights,), (*companions, config, weights), adapter)


def _goes_along(path: str) -> bool:
    return "/" not in path and any(fnmatchcase(path, pattern) for pattern in COMPANIONS)


def _refuse_pickles(pin: Pin) -> None:
    if pin.file(SINGLE) or pin.file(INDEX):
        return
    if _holds_adapter(pin):
        words = "this is an adapter: the base must be a whole model"
        raise SpearError(Code.ADAPTER_UNSUPPORTED, words, file=ADAPTER_CONFIG)
    packed = next((file.path for file in pin.files if file.path.endswith(".gguf")), None)
    if packed:
        raise SpearError(Code.QUANTIZED_WEIGHTS, f"{packed} is GGUF: only safetensors can be merged", file=packed)
    pickles = [file.path for file in pin.files if file.path.endswith(_PICKLES)]
    if pickles:
        shown = ", ".join(pickles[:5]) + (" ..." if len(pickles) > 5 else "")
        raise SpearError(Code.PICKLE_ONLY, f"weights only as pickles: {shown}", files=pickles)
    raise SpearError(Code.WEIGHTS_MISSING, f"neither {SINGLE} nor {INDEX} is there", files=[SINGLE, INDEX])


def _config(hub: Hub, pin: Pin, *, settings: Settings) -> dict[str, Any]:
    file = pin.file(CONFIG)
    if file is None:
        raise SpearError(Code.CONFIG_INVALID, f"there is no {CONFIG}", file=CONFIG)
    raw = read_small(hub, pin, file, settings=settings)
    config = parse_object(raw, code=Code.CONFIG_INVALID, file=CONFIG, max_depth=settings.max_json_depth)
    if not isinstance(config.get("model_type"), str):
        raise SpearError(Code.CONFIG_INVALID, f"{CONFIG} names no model_type", file=CONFIG, field="model_type")
    for field in COUNTS:
        _check_count(config, field)
    for part in _parts(config):
        if part.get("auto_map"):
            raise SpearError(Code.REMOTE_CODE, f"{CONFIG} asks for code (auto_map)", file=CONFIG, field="auto_map")
        for field in ("quantization_config", "compression_config"):
            if part.get(field):
                raise SpearError(Code.QUANTIZED_WEIGHTS, f"{CONFIG} has a {field}", file=CONFIG, field=field)
    return config


def _parts(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The configuration and all configurations within it: of a text model, a vision tower, one in a list."""
    waiting: list[Any] = [config]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            yield part
        children = part.values() if isinstance(part, dict) else part
        waiting += [child for child in children if isinstance(child, dict | list)]


def _check_count(config: dict[str, Any], field: str) -> None:
    """Numbers of layers, heads, tokens: what is no count that a model could have would only confuse what reads it."""
    for part in (config, config.get("text_config")):
        value = part.get(field) if isinstance(part, dict) else None
        if value is not None and (type(value) is not int or not 0 <= value <= MAX_COUNT):
            words = f"{CONFIG}: {field} is {shown(value)}, which no model has"
            raise SpearError(Code.CONFIG_INVALID, words, file=CONFIG, field=field)


def _refuse_tokenizer_code(hub: Hub, pin: Pin, *, settings: Settings) -> None:
    file = pin.file(TOKENIZER_CONFIG)
    if file is None:
        return
    raw = read_small(hub, pin, file, settings=settings)
    said = parse_object(raw, code=Code.CONFIG_INVALID, file=TOKENIZER_CONFIG, max_depth=settings.max_json_depth)
    if said.get("auto_map"):
        raise SpearError(
            Code.REMOTE_CODE, f"{TOKENIZER_CONFIG} asks for code (auto_map)", file=TOKENIZER_CONFIG, field="auto_map"
        )


def _headers(
    hub: Hub, pin: Pin, weights: Sequence[RemoteFile], *, settings: Settings
) -> dict[str, dict[str, TensorInfo]]:
    """Every shard's tensors by the shard's name, shards read side by side."""
    with ThreadPoolExecutor(_HEADER_READERS) as pool:
        found = pool.map(lambda file: _header(hub, pin, file, settings=settings), weights)
        shards = dict(zip((file.path for file in weights), found, strict=True))
    total = sum(len(tensors) for tensors in shards.values())
    if total > settings.max_tensors:
        words = f"{total} tensors; {settings.max_tensors} are allowed"
        raise SpearError(Code.LIMIT_EXCEEDED, words, limit="max_tensors")
    return shards


def _header(hub: Hub, pin: Pin, file: RemoteFile, *, settings: Settings) -> dict[str, TensorInfo]:
    """Two range requests: the length, then exactly the header."""
    first = hub.read(pin.repo, pin.commit, file.path, size=LENGTH_BYTES) if file.size else b""
    size = header_size(first, file=file.path, limit=settings.max_header_bytes)
    if LENGTH_BYTES + size > file.size:
        raise SpearError(Code.HEADER_INVALID, f"the header of {file.path} is longer than the file", file=file.path)
    raw = hub.read(pin.repo, pin.commit, file.path, start=LENGTH_BYTES, size=size)
    return parse_header(
        raw, file=file.path, file_size=file.size, max_tensors=settings.max_tensors,
        max_name=settings.max_name_length, max_values=settings.max_json_values,
    )  # fmt: skip
