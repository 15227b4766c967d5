"""What names an answer sheet: the model, the task and the settings that its values depend on. Pure."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from app.hub.adapters import applied_digests

FORMAT = 1
"""Raised whenever the same request would be answered otherwise than before."""
_ASIDE = ("README", "LICENSE", "NOTICE", "model.safetensors.index.json")
_LIBRARIES = ("lm-eval", "transformers", "torch")


@dataclass(frozen=True)
class Key:
    """All that a sheet depends on, as digests: sheets of one key are equal."""

    model: str
    task: str
    settings: str


def model_digest(digests: Mapping[str, str], *, base: Mapping[str, str] | None = None) -> str:
    """Of a model's files: weights, configuration, tokenizer; what is only read by people does not count.

    With `base`, the files are an adapter's, which is applied to that model.
    """
    files = dict(digests) if base is None else {**base, **digests, **applied_digests(base=base, adapter=digests)}
    return _digest({path: digest for path, digest in files.items() if not path.startswith(_ASIDE)})


def settings_digest(*, limit: int | None, seed: int, dtype: str, device: str) -> str:
    """Of what the answers depend on beside model and task, the versions of the libraries among it."""
    libraries = {name: version(name) for name in _LIBRARIES}
    return _digest({"format": FORMAT, "limit": limit, "seed": seed, "dtype": dtype, "device": device, **libraries})


def task_digest(**parts: Any) -> str:
    """Of what a task's items and prompts are made from."""
    return _digest(parts)


def blob_digest(path: Path) -> str:
    """The digest of a file that is not in LFS, as the Hub gives it: git's name of the blob."""
    content = path.read_bytes()
    return "git:" + hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
