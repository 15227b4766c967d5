"""A small base and its experts: those of the evidence for math and Japanese, and one for finance beside them."""

import gzip
import random
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import torch

from benchmarks.demo.places import once
from benchmarks.evidence import corpora
from benchmarks.evidence.plan import BLOCK, HOME, PairName
from benchmarks.evidence.train import BATCH, prepare

DOMAINS = ("finance", "math", "japanese")
STEPS, RATE = 100, 1.5e-3
_PARTS = {"train": (0, 1, 2, 5, 6, 7), "calibration": (3, 8), "held_out": (4, 9)}


def models(seed: int = 1) -> dict[str, Path]:
    """The folders of base and experts, trained where they are not there (about two minutes of one core)."""
    found = {}
    for domain in ("math", "japanese"):
        pair = PairName("llama", domain, seed)
        prepare(pair)
        found |= {"base": pair.base, domain: pair.adapted}
    found["finance"] = once(found["base"].parent / "finance", lambda folder: _train(found["base"], folder, seed=seed))
    return {name: found[name] for name in ("base", *DOMAINS)}


def documents(kind: str, *, part: str) -> list[str]:
    """The texts of `general` or of a domain that belong to `train`, `calibration` or `held_out`."""
    if kind != "finance":
        return corpora.documents(kind, part=part)
    return [text for i, text in enumerate(_manual()) if i % 10 in _PARTS[part]]


@cache
def _manual() -> list[str]:
    """The manual of the accounting program ledger (BSD-3), fetched by `apt-get download`; never committed."""
    folder = once(HOME / "finance", _fetch)
    text = gzip.decompress(next(folder.rglob("ledger3.info.gz")).read_bytes()).decode(errors="replace")
    return [text[start : start + 2000] for start in range(20_000, len(text), 2000)]  # the contents stand before


def _fetch(folder: Path) -> None:
    try:
        subprocess.run(["apt-get", "download", "ledger"], cwd=folder, check=True, capture_output=True)
        subprocess.run(["dpkg-deb", "-x", next(folder.glob("*.deb")).name, "."], cwd=folder, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit("ledger could not be fetched: the finance expert needs Debian's apt") from error


def _train(base: Path, folder: Path, *, seed: int) -> None:
    """As the evidence trains its domains, at the same rate."""
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    for step, batch in zip(range(STEPS), _batches(seed), strict=False):
        optimizer.param_groups[0]["lr"] = RATE * min(1.0, (step + 1) / 10)
        loss = model(batch, labels=batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    corpora.tokenizer().save_pretrained(folder)


def _batches(seed: int) -> Iterator[torch.Tensor]:
    encode = corpora.tokenizer()
    texts = documents("finance", part="train")
    random.Random(seed).shuffle(texts)
    tokens = torch.tensor([token for text in texts for token in (*encode(text).input_ids, encode.eos_token_id)])
    blocks = tokens[: len(tokens) // BLOCK * BLOCK].view(-1, BLOCK)
    while True:
        order = torch.randperm(len(blocks))
        for at in range(0, len(order) - BATCH, BATCH):
            yield blocks[order[at : at + BATCH]]
