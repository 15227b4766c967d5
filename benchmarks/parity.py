"""Bit-for-bit parity with the real mergekit 0.1.5, which lives in an environment of its own.

`python -m benchmarks.parity PYTHON_OF_MERGEKIT [FOLDER]` merges generated checkpoints (odd shapes, several shards,
bf16, fp16 and fp32) with both, and compares every element. The exit status is 0 only if all are equal.
"""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from app.recipes import parse_recipe
from benchmarks.checkpoints import Shape, config, tensors
from worker.checkpoints.dtypes import TAGS
from worker.checkpoints.reader import Checkpoint, memory
from worker.checkpoints.writer import ShardedWriter
from worker.pipeline.merge import merge
from worker.pipeline.task import Input, Reporter, Task

SHAPE = Shape(hidden=136, intermediate=296, layers=12, heads=4, kv_heads=2, vocabulary=8_011)
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
DEFAULTS: list[tuple[str, dict[str, Any], int]] = [
    *[case for case in CASES if case[0] not in {"dare_linear", "dare_ties", "ties"}],
    ("nuslerp", {}, 2),
    ("nuslerp", {"nuslerp_flatten": False}, 2),
    ("nuslerp", {"nuslerp_flatten": False, "nuslerp_row_wise": True}, 2),
    ("nuslerp", {"task_vectors": True}, 2),
    ("multislerp", {}, 3),
    ("multislerp", {"task_vectors": True}, 3),
    ("karcher", {"max_iter": 20}, 3),
    ("model_stock", {}, 3),
    ("model_stock", {"filter_wise": True}, 2),
    ("sce", {}, 3),
    ("nearswap", {"t": 0.001}, 1),
    ("passthrough", {"scale": 0.7}, 1),
]
"""What is compared in default mode: all but random masks, and what keeps others of equal magnitudes (ties, breadcrumbs,
sce with a selection, arcee_fusion beyond a million entries)."""
DTYPES = [("bfloat16", None), ("float32", "bfloat16"), ("float16", None), ("float32", None), (None, None)]
WEIGHTS = [0.3, 0.5, 0.4]


def make(folder: Path, *, dtype: torch.dtype) -> list[Path]:
    """A base and three experts in shards of 1 MB."""
    paths = [folder / name for name in ("base", "expert1", "expert2", "expert3")]
    for seed, path in enumerate(paths):
        with ShardedWriter(
            path, tensors=[(name, TAGS[dtype], size) for name, size in tensors(SHAPE)], max_shard_bytes=1_000_000,
            journal=folder / "journal", plan=str(seed),
        ) as to:
            for name in to.order:
                to.write(name, memory(_tensor(name, seed).to(dtype).reshape(-1)))
                to.finish(name)
            to.complete()
        (path / "config.json").write_text(json.dumps(config(SHAPE)))
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


def far(left: Path, right: Path, *, noise: float) -> tuple[int, int, int]:
    """bf16 elements that are more than one rounding apart, those that differ at all, and all elements.

    What differs by less than `noise` times the tensor's largest value counts as near: base + delta cancels there.
    """
    apart = unequal = total = 0
    with Checkpoint.open(left) as one, Checkpoint.open(right) as other:
        for name in one.tensors:
            a, b = one.read(name), other.read(name)
            steps = (a.view(torch.int16).int() - b.view(torch.int16).int()).abs()
            tiny = (a.float() - b.float()).abs() <= b.float().abs().max() * noise
            apart += int(((steps > 1) & ~tiny).sum())
            unequal += int((steps > 0).sum())
            total += a.numel()
    return apart, unequal, total


def main() -> int:
    python, folder = sys.argv[1], Path(sys.argv[2] if len(sys.argv) > 2 else ".bench/parity")
    torch.set_num_threads(1)
    failures, jobs, checks = 0, [], []
    for stored in (torch.bfloat16, torch.float16, torch.float32):
        paths = make(folder / str(stored)[6:], dtype=stored)
        for number, (name, settings, experts) in enumerate(CASES):
            for dtype, out in DTYPES if stored == torch.bfloat16 else DTYPES[-1:]:
                used = paths[: experts + 1]
                target = folder / f"mergekit-{str(stored)[6:]}-{number}-{dtype}-{out}"
                jobs.append((mergekit_recipe(used, name, settings, dtype, out), target))
                method = {"name": name, "compat": "mergekit", "dtype": dtype, **settings}
                checks.append((used, method | ({"seed": SEED} if "dare" in name else {}), out, target))
    paths = [folder / "bfloat16" / name for name in ("base", "expert1", "expert2", "expert3")]
    ends = []
    for number, (name, settings, experts) in enumerate(DEFAULTS):
        target = folder / f"mergekit-default-{number}-{name}"
        jobs.append((mergekit_recipe(paths[: experts + 1], name, settings, "float32", "bfloat16"), target))
        ends.append((paths[: experts + 1], {"name": name, **settings}, target))
    theirs(python, jobs, folder=folder)
    for used, method, target in ends:
        # mergekit's multislerp adds 1e-5 of noise: its tangent step is zero but for rounding
        noise = 2**-15 if method["name"] == "multislerp" else 2**-18
        apart, unequal, total = far(ours(used, method, out="bfloat16", work=folder / "ours"), target, noise=noise)
        failures += apart > 0
        print(f"{'ok  ' if not apart else 'FAIL'} {apart:8} beyond one rounding, {unequal} of {total} differ: {method}")
    for used, method, out, target in checks:
        found, total = differing(ours(used, method, out=out, work=folder / "ours"), target)
        failures += found > 0
        print(f"{'ok  ' if not found else 'FAIL'} {found:8} of {total} differ: {target.name} {method}", flush=True)
    shutil.rmtree(folder)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
