"""The files that go with the weights: configs, tokenizer, chat template; those of the adapted model."""

import json
from pathlib import Path

from app.errors import Code
from app.hub.adapters import ADAPTER_CONFIG
from app.hub.strictjson import parse_object

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


def copy_companions(source: Path, output: Path, *, dtype: str | None, base: Path | None = None) -> list[str]:
    """Copies what PATTERNS name, and returns the names in order; config.json says `dtype` where that was asked for.

    Of an adapter over `base`, these are the base's files, with the adapter's tokenizer if it has one.
    """
    files = _of_adapter(source, base) if base and (source / ADAPTER_CONFIG).is_file() else _files(source, PATTERNS)
    for name, path in files.items():
        data = path.read_bytes()
        (output / name).write_bytes(_with_dtype(data, dtype) if dtype and name == "config.json" else data)
    return list(files)


def _files(folder: Path, patterns: tuple[str, ...]) -> dict[str, Path]:
    found = {path.name: path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    return dict(sorted(found.items()))


def _of_adapter(adapter: Path, base: Path) -> dict[str, Path]:
    """A tokenizer is taken whole: the files of two are never mixed."""
    tokenizer = _files(adapter if _files(adapter, TOKEN_MAPS) else base, TOKENIZER)
    others = {name: path for name, path in _files(base, PATTERNS).items() if name not in _files(base, TOKENIZER)}
    return dict(sorted({**others, **tokenizer}.items()))


def _with_dtype(raw: bytes, dtype: str) -> bytes:
    config = parse_object(raw, code=Code.CONFIG_INVALID, file="config.json")
    parts = [config, *(part for part in config.values() if isinstance(part, dict))]
    for part in parts:
        part.update({key: dtype for key in DTYPE_KEYS if key in part})
    if not any(key in config for key in DTYPE_KEYS):
        config["dtype"] = dtype
    return (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()
