"""The files that go with the weights: configs, tokenizer, chat template; those of the adapted model."""

import json
from fnmatch import fnmatchcase
from pathlib import Path

from app.errors import Code, SpearError
from app.hub.adapters import ADAPTER_CONFIG
from app.hub.strictjson import parse_object
from worker.checkpoints.disk import disk_full_named

TOKEN_MAPS = ("tokenizer.json", "vocab.json", "vocab.txt", "*.model", "*.tiktoken")
TOKENIZER = (
    *TOKEN_MAPS, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt",
    "chat_template.*",
)  # fmt: skip
PATTERNS = (
    *TOKENIZER, "config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json",
    "video_preprocessor_config.json",
)  # fmt: skip
DTYPE_KEYS = ("dtype", "torch_dtype")
TOKEN_KEYS = ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")
"""what config.json says of the vocabulary"""


def copy_companions(
    source: Path, output: Path, *, dtype: str | None, base: Path | None = None, vocabulary: Path | None = None
) -> list[str]:
    """Copies what PATTERNS name, and returns the names in order; config.json says `dtype` where that was asked for.

    Of an adapter over `base`, these are the base's files, with the adapter's tokenizer if it has one. With
    `vocabulary`, all that depends on token ids is that model's: tokenizer, generation config, ids in config.json.
    Raises `SpearError(DISK_FULL)`, leaving none of them.
    """
    files = _of_model(source, base)
    if vocabulary:
        theirs = (*TOKENIZER, "generation_config.json")
        files = {name: path for name, path in files.items() if not _matching(name, theirs)}
        files |= {name: path for name, path in _of_model(vocabulary, base).items() if _matching(name, theirs)}
    for name, path in sorted(files.items()):
        data = path.read_bytes()
        if name == "config.json":
            data = _with_vocabulary(data, _of_model(vocabulary, base)[name].read_bytes()) if vocabulary else data
            data = _with_dtype(data, dtype) if dtype else data
        try:
            with disk_full_named(name):
                (output / name).write_bytes(data)
        except SpearError:
            for each in files:
                (output / each).unlink(missing_ok=True)
            raise
    return sorted(files)


def _of_model(source: Path, base: Path | None) -> dict[str, Path]:
    return _of_adapter(source, base) if base and (source / ADAPTER_CONFIG).is_file() else _files(source, PATTERNS)


def _matching(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _files(folder: Path, patterns: tuple[str, ...]) -> dict[str, Path]:
    found = {path.name: path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    return dict(sorted(found.items()))


def _of_adapter(adapter: Path, base: Path) -> dict[str, Path]:
    """A tokenizer is taken whole: the files of two are never mixed."""
    tokenizer = _files(adapter if _files(adapter, TOKEN_MAPS) else base, TOKENIZER)
    others = {name: path for name, path in _files(base, PATTERNS).items() if name not in _files(base, TOKENIZER)}
    return dict(sorted({**others, **tokenizer}.items()))


def _with_vocabulary(raw: bytes, source: bytes) -> bytes:
    """The configuration with the source's size of vocabulary and ids of special tokens, where they stand in it."""
    config, model = (parse_object(each, code=Code.CONFIG_INVALID, file="config.json") for each in (raw, source))
    pairs = [(config, model)]
    if isinstance(config.get("text_config"), dict) and isinstance(model.get("text_config"), dict):
        pairs.append((config["text_config"], model["text_config"]))
    for ours, theirs in pairs:
        for key in TOKEN_KEYS:
            ours.pop(key, None)
            if key in theirs:
                ours[key] = theirs[key]
    return (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()


def _with_dtype(raw: bytes, dtype: str) -> bytes:
    config = parse_object(raw, code=Code.CONFIG_INVALID, file="config.json")
    parts = [config, *(part for part in config.values() if isinstance(part, dict))]
    for part in parts:
        part.update({key: dtype for key in DTYPE_KEYS if key in part})
    if not any(key in config for key in DTYPE_KEYS):
        config["dtype"] = dtype
    return (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()
