"""Continual pretraining that makes the model forget: 50 hard steps on word problems.

The learning rate is chosen high on purpose. A gentle run on so little text forgets nothing, and then there is nothing
to restore; what is shown is what an aggressive fine-tune does.
"""

import math
import os
import shutil
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.demo.places import ADAPTED, once
from benchmarks.demo.texts import TRAINING_SEED, problems

STEPS, BATCH, PEAK_RATE, WARM_UP = 50, 4, 5e-4, 5
CARD = """---
license: apache-2.0
base_model: local/smollm2-135m
library_name: transformers
---
The demo's adapted model: 50 steps of continual pretraining on word problems made by reasoning-gym (gsm_symbolic),
4 x 256 tokens each, AdamW at 5e-4. It is meant to forget.
"""
COMPANIONS = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")


def adapted_model(base: Path) -> Path:
    """The folder of the adapted checkpoint, trained when it is not there."""
    return once(ADAPTED, lambda folder: _train(base, folder))


def _train(base: Path, folder: Path) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(min(2, os.cpu_count() or 1))
    tokenizer = AutoTokenizer.from_pretrained(base)
    blocks = problems(tokenizer, blocks=STEPS * BATCH, seed=TRAINING_SEED)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)  # float32 weights, bfloat16 arithmetic
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, weight_decay=0.0, fused=True)
    columns = (TextColumn("train"), BarColumn(), MofNCompleteColumn(), TextColumn("loss {task.fields[loss]}"))
    with Progress(*columns, TimeRemainingColumn()) as progress:
        bar = progress.add_task("train", total=STEPS, loss="")
        for step, batch in enumerate(blocks.split(BATCH)):
            optimizer.param_groups[0]["lr"] = _rate(step)
            loss = _step(model, optimizer, batch)
            progress.update(bar, advance=1, loss=f"{loss:.2f}")
            if not progress.console.is_terminal and step % 10 == 9:
                print(f"train {step + 1}/{STEPS} loss {loss:.2f}", flush=True)
    _save(model, base=base, folder=folder)


def _step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, batch: torch.Tensor) -> float:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(batch, labels=batch, use_cache=False).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return float(loss.detach())


def _rate(step: int) -> float:
    """A short warm-up, then half a cosine down to a tenth."""
    if step < WARM_UP:
        return PEAK_RATE * (step + 1) / WARM_UP
    way = (step - WARM_UP) / max(1, STEPS - WARM_UP - 1)
    return PEAK_RATE * (0.1 + 0.9 * (1 + math.cos(math.pi * way)) / 2)


def _save(model: torch.nn.Module, *, base: Path, folder: Path) -> None:
    model.to(torch.bfloat16).save_pretrained(folder)
    for name in COMPANIONS:
        shutil.copyfile(base / name, folder / name)
    (folder / "README.md").write_text(CARD)
