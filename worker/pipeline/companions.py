"""The files that go with the weights: configs, tokenizer, chat template; those of the adapted model."""

import json
from pathlib import Path

from app.errors import Code
from app.hub.strictjson import parse_object

PATTERNS = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "*.model", "*.tiktoken", "chat_template.*",
    "preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json",
)  # fmt: skip
DTYPE_KEYS = ("dtype", "torch_dtype")


def copy_companions(source: Path, output: Path, *, dtype: str | None) -> list[str]:
    """Copies what PATTERNS name, and returns the names in order; config.json says `dtype` where that was asked for."""
    names = sorted({path.name for pattern in PATTERNS for path in source.glob(pattern) if path.is_file()})
    for name in names:
        data = (source / name).read_bytes()
        (output / name).write_bytes(_with_dtype(data, dtype) if dtype and name == "config.json" else data)
    return names


def _with_dtype(raw: bytes, dtype: str) -> bytes:
    config = parse_object(raw, code=Code.CONFIG_INVALID, file="config.json")
    parts = [config, *(part for part in config.values() if isinstance(part, dict))]
    for part in parts:
        part.update({key: dtype for key in DTYPE_KEYS if key in part})
    if not any(key in config for key in DTYPE_KEYS):
        config["dtype"] = dtype
    return (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()
