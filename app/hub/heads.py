"""Output heads tied to the embedding: whether one is, and which stored copies do not count. Pure."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from app.hub.tokenrows import EMBEDDINGS

HEADS = ("lm_head.weight", "embed_out.weight")
"""Ends of the names of output heads."""
PART = re.compile(r"(?:^|\.)(?:mtp[^.]*|[0-9]+)\.")
"""What stands in the names of tensors that belong to a layer, or to a multi-token-prediction module."""
TIED_BY_DEFAULT = ("gemma", "gemma2", "gemma3", "gemma3_text", "gpt2", "opt", "bloom", "cohere", "cohere2")
"""Model types whose configuration, in transformers, ties the head where config.json says nothing."""


def is_tied(config: Mapping[str, Any], names: Iterable[str]) -> bool:
    """Whether the output head is the embedding: what the configuration says, else its model type's default, else
    whether no head is among the tensors' `names`."""
    for part in (config, config.get("text_config")):
        said = part.get("tie_word_embeddings") if isinstance(part, Mapping) else None
        if isinstance(said, bool):
            return said
    return config.get("model_type") in TIED_BY_DEFAULT or not any(name.endswith(HEADS) for name in names)


def idle_heads(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Heads stored beside the embedding that they are tied to: loaders use the embedding. `shapes` are by name.

    A head of a part of its own (multi-token prediction, a layer) is none of them: nothing ties that.
    """
    embeddings = {name: shape for name, shape in shapes.items() if name.endswith(EMBEDDINGS)}
    heads = [
        name
        for name, shape in shapes.items()
        if name.endswith(HEADS) and any(shape == other and _goes_with(name, at) for at, other in embeddings.items())
    ]
    return heads if heads and is_tied(config, shapes) else []


def _goes_with(head: str, embedding: str) -> bool:
    """Whether they belong to one language model: the head stands at its top, or beside the embedding's module."""
    place = re.sub(r"[^.]+\.weight$", "", head)
    return embedding.startswith(place) and not PART.search(place)
