"""Parity with the real mergekit 0.1.5, which lives in an environment of its own.

`python -m benchmarks.parity PYTHON_OF_MERGEKIT [FOLDER] [PART...]` merges generated checkpoints (odd
shapes, a tensor of more than 2^20 elements, several shards, tied and untied heads, bf16, fp16 and fp32) with both, and
compares every element: bit for bit in compat mode, to one rounding in default mode. The exit status is 0 only if all
agree. Parts are `compat`, `random` and `default-bf16`, `-tied`, `-fp16`, `-fp32`.
"""

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from app.recipes import parse_recipe
from benchmarks import parity_defaults
from benchmarks.checkpoints import Shape, config, tensors
from worker.checkpoints.dtypes import TAGS
from worker.checkpoints.reader import Checkpoint, memory
from worker.checkpoints.writer import ShardedWriter
from worker.pipeline.merge import merge
from worker.pipeline.task import Input, Reporter, Task

SHAPE = Shape(  # embedding and head have 1 089 496 elements
    hidden=136, intermediate=296, layers=12, heads=4, kv_heads=2, vocabulary=8_011
)
SEED = 7
CASES: list[tuple[str, dict[str, Any], int]] = [
    ("linear", {"normalize": True}, 3),
    ("linear", {"normalize": False}, 2),
    ("slerp", {"t": [{"filter": "self_attn", "value": [0.0, 0.3, 1.0]}, {"value": 0.6}]}, 1),
    ("slerp", {"t": 0.25}, 1),
    ("task_arithmetic", {"lambda": 0.7}, 2),
    ("task_arithmetic", {"normalize": True}, 3),
    ("ties", {"density": 0.5}, 2),
    ("ties", {"density": [0.2, 0.8], "lambda": 0.9, "rescale": True}, 3),
    ("dare_linear", {"density": 0.53}, 2),
    ("dare_ties", {"density": 0.5}, 2),
    ("dare_ties", {"density": 0.3, "rescale": False, "normalize": True}, 3),
]
NO_WEIGHT = {"slerp", "model_stock", "karcher", "sce", "nearswap", "arcee_fusion", "passthrough"}
NO_BASE = {"linear", "multislerp", "karcher", "nuslerp", "passthrough"}
DTYPES = [("bfloat16", None), ("float32", "bfloat16"), ("float16", None), ("float32", None), (None, None)]
WEIGHTS = [0.3, 0.5, 0.4]


def make(folder: Path, *, dtype: torch.dtype, tied: bool = False) -> list[Path]:
    """A base and three experts in shards of 1 MB."""
    wanted = [(name, TAGS[dtype], size) for name, size in tensors(SHAPE) if not (tied and name == "lm_head.weight")]
    paths = [folder / name for name in ("base", "expert1", "expert2", "expert3")]
    for seed, path in enumerate(paths):
        with ShardedWriter(
            path, tensors=wanted, max_shard_bytes=1_000_000, journal=folder / "journal", plan=f"{seed}{tied}",
        ) as to:
            for name in to.order:
                to.write(name, memory(_tensor(name, seed).to(dtype).reshape(-1)))
                to.finish(name)
            to.complete()
        (path / "config.json").write_text(json.dumps(config(SHAPE) | {"tie_word_embeddings": tied}))
    return paths


def _tensor(name: str, seed: int) -> torch.Tensor:
    size = dict(tensors(SHAPE))[name]
    base = torch.randn(size, generator=torch.Generator().manual_seed(sum(name.encode()))) * 0.02
    noise = torch.randn(size, generator=torch.Generator().manual_seed(sum(name.encode()) * 31 + seed))
    return base if seed == 0 else base + noise * 0.02 * (0.01, 0.04, 0.5)[len(name) % 3]


def ours(paths: list[Path], method: dict[str, Any], *, out: str | None, work: Path) -> Path:
    """Our merge; the output folder."""
    recipe = parse_recipe({
        "base": {"repo": "org/base"}, "method": method, "target": {"repo": "org/out"},
        "experts": [
            {"repo": f"org/{path.name}"} | ({"weight": weight} if method["name"] not in NO_WEIGHT else {})
            for path, weight in zip(paths[1:], WEIGHTS, strict=False)
        ],
        "output": {"max_shard_bytes": 1_000_000, "dtype": out},
    })  # fmt: skip
    inputs = tuple(
        Input(repo=f"org/{path.name}", revision="main", commit=str(i) * 40, path=path, digests={})
        for i, path in enumerate(paths)
    )
    shutil.rmtree(work, ignore_errors=True)
    task = Task(job_id="mrg_parity", attempt=1, recipe=recipe, inputs=inputs, work_dir=work)
    merge(task, None, Reporter(io.BytesIO()))
    return task.output


def theirs(python: str, jobs: list[tuple[dict[str, Any], Path]], *, folder: Path) -> None:
    """All of mergekit's merges in one process."""
    listing = folder / "jobs.json"
    listing.write_text(json.dumps([[recipe, str(path)] for recipe, path in jobs]))
    script = Path(__file__).with_name("mergekit_runner.py")
    subprocess.run([python, str(script), str(listing), str(SEED), "1000000"], check=True, stdout=sys.stderr)


def mergekit_recipe(paths: list[Path], name: str, settings: dict[str, Any], dtype: str | None, out: str | None) -> Any:
    """The same merge in mergekit's language."""
    settings = dict(settings)
    about_base = settings.pop("task_vectors", False)
    experts = [
        {"model": str(path)} | ({} if name in NO_WEIGHT else {"parameters": {"weight": weight}})
        for path, weight in zip(paths[1:], WEIGHTS, strict=False)
    ]
    models = [{"model": str(paths[0])}, *experts] if name in {"slerp", "nearswap"} else experts
    recipe = {"merge_method": name, "models": models, "parameters": settings, "dtype": dtype, "out_dtype": out}
    return recipe if name in NO_BASE and not about_base else recipe | {"base_model": str(paths[0])}


def differing(left: Path, right: Path) -> tuple[int, int]:
    """Elements that are not bit for bit equal, and all elements."""
    unequal = total = 0
    with Checkpoint.open(left) as one, Checkpoint.open(right) as other:
        assert one.tensors.keys() == other.tensors.keys()
        for name in one.tensors:
            a, b = one.read(name), other.read(name)
            assert a.dtype == b.dtype, (name, a.dtype, b.dtype)
            unequal += int((a != b).sum())
            total += a.numel()
    return unequal, total


def main() -> int:
    python, folder = sys.argv[1], Path(sys.argv[2] if len(sys.argv) > 2 else ".bench/parity")
    asked = sys.argv[3:] or list(PARTS)
    torch.set_num_threads(1)
    failures = sum(PARTS[part](python, folder / part) for part in asked)
    shutil.rmtree(folder)
    return int(failures > 0)


def compat(python: str, folder: Path) -> int:
    """compat mode, bit for bit; the number of cases that fail."""
    jobs, checks = [], []
    for stored in (torch.bfloat16, torch.float16, torch.float32):
        paths = make(folder / str(stored)[6:], dtype=stored)
        for number, (name, settings, experts) in enumerate(CASES):
            for dtype, out in DTYPES if stored == torch.bfloat16 else DTYPES[-1:]:
                used = paths[: experts + 1]
                target = folder / f"mergekit-{str(stored)[6:]}-{number}-{dtype}-{out}"
                jobs.append((mergekit_recipe(used, name, settings, dtype, out), target))
                method = {"name": name, "compat": "mergekit", "dtype": dtype, **settings}
                checks.append((used, method | ({"seed": SEED} if "dare" in name else {}), out, target))
    theirs(python, jobs, folder=folder)
    failures = 0
    for used, method, out, target in checks:
        found, total = differing(ours(used, method, out=out, work=folder / "ours"), target)
        failures += found > 0
        print(f"{'ok  ' if not found else 'FAIL'} {found:8} of {total} differ: {target.name} {method}", flush=True)
    return failures


def default(python: str, folder: Path, *, stored: torch.dtype, tied: bool = False) -> int:
    """Default mode, to one rounding outside of what differs by intention; the number of cases that fail."""
    jobs, checks = [], []
    label = str(stored)[6:]
    paths = make(folder / label, dtype=stored, tied=tied)
    for number, (name, settings, experts) in enumerate(parity_defaults.CASES):
        used, target = paths[: experts + 1], folder / f"mergekit-{label}-{number}-{name}"
        jobs.append((mergekit_recipe(used, name, settings, "float32", label), target))
        checks.append((used, {"name": name, **settings}, label, target))
    theirs(python, jobs, folder=folder)
    failures = 0
    for used, method, out, target in checks:
        merged = ours(used, method, out=out, work=folder / "ours")
        apart, unequal, aside, total = parity_defaults.far(merged, target, method=method, inputs=used)
        failures += apart > 0
        words = f"{apart:6} beyond one rounding, {unequal} differ, {aside} left aside, of {total}"
        print(f"{'ok  ' if not apart else 'FAIL'} {words}: {target.name} {method}", flush=True)
    return failures


def random(python: str, folder: Path) -> int:
    """Random masks: the density that is kept, and the norm; the number of cases that fail."""
    jobs, checks = [], []
    paths = make(folder / "float32", dtype=torch.float32)[:2]
    for number, (name, settings, _) in enumerate(parity_defaults.RANDOM):
        target = folder / f"mergekit-{number}-{name}"
        jobs.append((mergekit_recipe(paths, name, settings, "float32", "float32"), target))
        checks.append(({"name": name, **settings}, target))
    theirs(python, jobs, folder=folder)
    failures = 0
    for method, target in checks:
        merged = ours(paths, method, out="float32", work=folder / "ours")
        words, fits = parity_defaults.masks(merged, target, weight=WEIGHTS[0], method=method, inputs=paths)
        failures += not fits
        print(f"{'ok  ' if fits else 'FAIL'} {words}: {method}", flush=True)
    return failures


PARTS: dict[str, Callable[[str, Path], int]] = {
    "compat": compat, "random": random, "default-bf16": partial(default, stored=torch.bfloat16),
    "default-tied": partial(default, stored=torch.bfloat16, tied=True),
    "default-fp16": partial(default, stored=torch.float16), "default-fp32": partial(default, stored=torch.float32),
}  # fmt: skip

if __name__ == "__main__":
    sys.exit(main())
