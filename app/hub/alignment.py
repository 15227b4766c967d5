"""Heads of checkpoints as they will be once their rows are matched by token: what the other checks then compare."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from app.errors import SpearError
from app.hub.adapter_heads import ships_tokenizer
from app.hub.headers import DTYPE_BITS, TensorInfo
from app.hub.inspect import Head
from app.hub.tokenrows import Lexicon, by_token, count_rows, read_tokens


def align(heads: Sequence[Head], *, source: int) -> tuple[Head, ...]:
    """Every head with as many rows as model `source` has, and without a vocabulary size in its configuration.

    Raises `SpearError(VOCABULARY_MISMATCH)`; `names["model"]` is the head's place in `heads`.
    """
    rows = _rows(heads, source)
    return tuple(_aligned(head, rows=rows, own=_rows(heads, number)) for number, head in enumerate(heads))


def read_lexicons(heads: Sequence[Head], *, read: Callable[[Head, str], bytes | None]) -> list[Lexicon]:
    """Every model's tokens; an adapter without a tokenizer of its own has the base's. `read` gives a file's content."""
    known: dict[tuple[str | None, ...], dict[str, int]] = {}
    found: list[Lexicon] = []
    for number, head in enumerate(heads):
        holder = heads[0] if head.adapter and not ships_tokenizer(head.pin) else head
        digests = tuple(file.digest for file in holder.files if file.path.endswith((".json", ".txt")))
        try:
            if digests not in known:
                known[digests] = read_tokens(lambda name, of=holder: read(of, name), repo=holder.repo)  # type: ignore[misc]
        except SpearError as error:
            error.names.setdefault("model", number)
            raise
        found.append(Lexicon(head.repo, known[digests], _rows(heads, number)))
    return found


def _rows(heads: Sequence[Head], number: int) -> int:
    shapes = {name: tensor.shape for name, tensor in heads[number].tensors.items()}
    try:
        return count_rows(shapes, repo=heads[number].repo)
    except SpearError as error:
        error.names.setdefault("model", number)
        raise


def _aligned(head: Head, *, rows: int, own: int) -> Head:
    tensors = {
        name: _resized(tensor, rows) if by_token(name) and tensor.shape[:1] == (own,) else tensor
        for name, tensor in head.tensors.items()
    }
    return replace(head, tensors=tensors, config=_without_size(head.config))


def _resized(tensor: TensorInfo, rows: int) -> TensorInfo:
    width = tensor.elements // max(1, tensor.shape[0])
    size = rows * width * DTYPE_BITS[tensor.dtype] // 8
    return replace(tensor, shape=(rows, *tensor.shape[1:]), nbytes=size)


def _without_size(config: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in config.items() if key != "vocab_size"}
    if isinstance(kept.get("text_config"), dict):
        kept["text_config"] = {key: value for key, value in kept["text_config"].items() if key != "vocab_size"}
    return kept
