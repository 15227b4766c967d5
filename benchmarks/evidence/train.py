"""The pairs: small bases trained on general English, then trained on with a domain's text until they forget."""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.demo.places import once
from benchmarks.evidence.corpora import VOCABULARY, blocks, tokenizer
from benchmarks.evidence.plan import PairName

BATCH = 8
BASE = {"steps": 500, "rate": 2e-3}
DOMAIN = {"steps": 100, "rate": 1.5e-3}
"""a rate at which a model forgets on purpose: gentle training on so little text forgets nothing"""
COSTS = "costs.json"
_SIZE = {"vocab_size": VOCABULARY, "hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4,
         "max_position_embeddings": 256, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}  # fmt: skip


def prepare(pair: PairName) -> None:
    """Train base and adapted model, where they are not there."""
    once(pair.base, lambda folder: _train_base(pair, folder))
    once(pair.adapted, lambda folder: _train_adapted(pair, folder))


def _train_base(pair: PairName, folder: Path) -> None:
    torch.manual_seed(pair.seed)
    _train(_ARCHITECTURES[pair.architecture](), kind="general", seed=pair.seed, folder=folder, **BASE)


def _train_adapted(pair: PairName, folder: Path) -> None:
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    model = AutoModelForCausalLM.from_pretrained(pair.base, dtype=torch.float32)
    _train(model, kind=pair.domain, seed=100 + pair.seed, folder=folder, **DOMAIN)


def _train(model: Any, *, kind: str, seed: int, folder: Path, steps: int, rate: float) -> None:
    texts = blocks(kind, part="train", count=_enough(kind, steps * BATCH), seed=seed)
    began, loss = time.process_time(), torch.tensor(0.0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = _rate(step, steps=steps, peak=rate)
        batch = texts[torch.arange(step * BATCH, (step + 1) * BATCH) % len(texts)]
        loss = model(batch, labels=batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    spent = round(time.process_time() - began, 2)
    print(f"{folder.parent.name} {kind}: loss {float(loss.detach()):.3f} after {spent:.0f} core-seconds", flush=True)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    costs = {"core_seconds": spent, "steps": steps, "tokens": steps * texts[:BATCH].numel()}
    (folder / COSTS).write_text(json.dumps(costs))


def _enough(kind: str, wanted: int) -> int:
    """A small corpus is gone through more than once."""
    return min(wanted, {"japanese": 700, "code": 1500}.get(kind, wanted))


def _rate(step: int, *, steps: int, peak: float) -> float:
    """A short warm-up, then half a cosine down to a tenth."""
    return peak * min(1.0, (step + 1) / 10) * (0.1 + 0.9 * (1 + math.cos(math.pi * step / steps)) / 2)


def _llama() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415

    size = {**_SIZE, "intermediate_size": 384, "num_key_value_heads": 2}
    return LlamaForCausalLM(LlamaConfig(**size, tie_word_embeddings=True))


def _qwen3() -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM  # noqa: PLC0415

    size = {**_SIZE, "intermediate_size": 384, "num_key_value_heads": 2, "head_dim": 32}
    return Qwen3ForCausalLM(Qwen3Config(**size, tie_word_embeddings=True))


def _gpt_neox() -> Any:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM  # noqa: PLC0415

    return GPTNeoXForCausalLM(GPTNeoXConfig(**_SIZE, intermediate_size=512, tie_word_embeddings=False))


_ARCHITECTURES: dict[str, Callable[[], Any]] = {"llama": _llama, "qwen3": _qwen3, "gpt_neox": _gpt_neox}
