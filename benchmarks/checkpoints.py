"""Generated Llama-shaped bf16 checkpoints: a base and fine-tuned variants, deterministic, in shards of 1 GB."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from worker.checkpoints.reader import Checkpoint, memory
from worker.checkpoints.writer import ShardedWriter

SHARD_BYTES = 1_000_000_000
RANK = 16


@dataclass(frozen=True)
class Shape:
    """The size of a model."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int = 32_000


SHAPES = {
    "tiny": Shape(256, 688, 4, 8, 4, 4_000),
    "quick": Shape(768, 2_048, 12, 12, 12),  # 0.13 B parameters
    "full": Shape(2_048, 8_192, 16, 32, 8),  # 1.1 B parameters
    "short": Shape(1_024, 2_816, 3, 16, 4, 8_000),  # 0.1 GB
    "long": Shape(1_024, 2_816, 87, 16, 4, 8_000),  # 2 GB, of the same matrices
}


def make_pair(folder: Path, *, size: str, experts: int = 2) -> list[Path]:
    """`base`, `expert1`, ... under `folder`; those that are there already are kept."""
    shape = SHAPES[size]
    paths = [folder / name for name in ("base", *(f"expert{i + 1}" for i in range(experts)))]
    for seed, path in enumerate(paths):
        if not (path / "config.json").exists():
            _write(path, shape=shape, seed=seed, base=paths[0] if seed else None)
    return paths


def _write(path: Path, *, shape: Shape, seed: int, base: Path | None) -> None:
    generator = torch.Generator().manual_seed(seed)
    wanted = [(name, "BF16", size) for name, size in tensors(shape)]
    source = Checkpoint.open(base) if base else None
    journal = path / "journal"
    with ShardedWriter(path, tensors=wanted, max_shard_bytes=SHARD_BYTES, journal=journal, plan=path.name) as to:
        for name in to.order:
            size = dict(tensors(shape))[name]
            tensor = _variant(source.read(name), name, shape, generator) if source else _fresh(size, generator)
            to.write(name, memory(tensor.bfloat16().reshape(-1)))
            to.finish(name)
        to.complete()
    journal.unlink(missing_ok=True)
    (path / "config.json").write_text(json.dumps(config(shape), indent=2))


def _fresh(size: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    noise = torch.randn(size, generator=generator)
    return noise.mul_(0.02) if len(size) == 2 else noise.mul_(0.1).add_(1)


def _variant(base: torch.Tensor, name: str, shape: Shape, generator: torch.Generator) -> torch.Tensor:
    """base + a delta of 1 % of its norm in the first layer to 6 % in the last, 60 % of its energy in rank 16."""
    depth = int(name.split(".")[2]) / max(1, shape.layers - 1) if ".layers." in name else 0.5
    base = base.float()
    delta = torch.randn(base.shape, generator=generator)
    delta /= delta.norm()
    if base.dim() == 2:
        low = torch.randn(base.shape[0], RANK, generator=generator) @ torch.randn(
            RANK, base.shape[1], generator=generator
        )
        delta = delta * 0.4**0.5 + low / low.norm() * 0.6**0.5
    return base + delta * base.norm() * (0.01 + 0.05 * depth)


def tensors(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of a Llama with an untied head."""
    hidden, kv = shape.hidden, shape.hidden // shape.heads * shape.kv_heads
    yield "model.embed_tokens.weight", (shape.vocabulary, hidden)
    for layer in range(shape.layers):
        sizes = {
            "self_attn.q_proj": (hidden, hidden), "self_attn.k_proj": (kv, hidden), "self_attn.v_proj": (kv, hidden),
            "self_attn.o_proj": (hidden, hidden), "mlp.gate_proj": (shape.intermediate, hidden),
            "mlp.up_proj": (shape.intermediate, hidden), "mlp.down_proj": (hidden, shape.intermediate),
            "input_layernorm": (hidden,), "post_attention_layernorm": (hidden,),
        }  # fmt: skip
        for name, size in sizes.items():
            yield f"model.layers.{layer}.{name}.weight", size
    yield "model.norm.weight", (hidden,)
    yield "lm_head.weight", (shape.vocabulary, hidden)


def config(shape: Shape) -> dict[str, object]:
    """config.json as transformers and mergekit read it."""
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate, "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads, "head_dim": shape.hidden // shape.heads, "vocab_size": shape.vocabulary,
        "max_position_embeddings": 2048, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "hidden_act": "silu",
        "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "bfloat16",
    }  # fmt: skip
