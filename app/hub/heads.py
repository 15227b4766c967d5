"""Output heads tied to the embedding: whether one is, and which stored copies do not count. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

from app.hub.tokenrows import EMBEDDINGS

HEADS = ("lm_head.weight", "embed_out.weight")
"""Ends of the names of output heads."""
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
    """Heads stored beside the embedding that they are tied to: loaders use the embedding. `shapes` are by name."""
    embeddings = {shape for name, shape in shapes.items() if name.endswith(EMBEDDINGS)}
    heads = [name for name, shape in shapes.items() if name.endswith(HEADS) and shape in embeddings]
    return heads if heads and is_tied(config, shapes) else []
