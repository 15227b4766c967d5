"""Scoring a Llama-3.2-1B-shaped pair: the service's two precisions beside `torch.linalg.svdvals`, in one run.

    python benchmarks/scores.py [--layers 16] [--baseline-layers 1] [--directory DIR]
    python benchmarks/scores.py --marks      the marks only, one line each, in a few minutes on two quiet cores
    python benchmarks/scores.py --pair DIR --write-only      the pair alone, for later runs with --pair DIR

The weights are synthetic: Gaussian noise with column scales, 64 strong directions of random strength, and an adaptation
of 0.5 to 4 % of the norm with a falling spectrum and some shrinking, all different from tensor to tensor. Files are
written to a temporary directory and removed. Times are CPU seconds of one process with one thread, unless said.
"""

# ruff: noqa: E402  (the processor's kernels are named before numpy and scipy are imported, as the worker's child does)
import argparse
import hashlib
import io
import json
import math
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from worker.processor import name_kernels

name_kernels()

import torch
from safetensors.torch import save_file
from scipy.stats import spearmanr
from torch import Tensor

from app.recipes import parse_recipe
from worker.checkpoints.reader import Checkpoint
from worker.pipeline.score import Scores, score
from worker.pipeline.task import Input, Reporter, Task

SHAPES = {
    "self_attn.q_proj": (2048, 2048), "self_attn.k_proj": (512, 2048), "self_attn.v_proj": (512, 2048),
    "self_attn.o_proj": (2048, 2048), "mlp.gate_proj": (8192, 2048), "mlp.up_proj": (8192, 2048),
    "mlp.down_proj": (2048, 8192),
}  # fmt: skip
MARKS: dict[str, tuple[float, bool]] = {
    "exact_times_faster": (6, False), "fast_times_faster": (15, False), "spearman_of_score": (0.99, False),
    "two_processes_times_faster": (1.8, False), "second_job_spectra_computed": (0, True),
    "peak_growth_over_largest_fp32": (4, True),
}  # fmt: skip
"""The figures that have an aim; whether it is the most (else the least)."""
LARGEST = 8192 * 2048 * 4  # bytes of the largest matrix in fp32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--baseline-layers", type=int, default=1, help="svdvals on so many layers, scaled to all")
    parser.add_argument("--directory", type=Path, default=None)
    parser.add_argument("--marks", action="store_true", help="one line for each figure that has an aim")
    parser.add_argument("--pair", type=Path, help="keep the pair here, and use it if it is there")
    parser.add_argument("--write-only", action="store_true", help="only write the pair")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with ExitStack() as stack:
        root = options.pair or Path(stack.enter_context(tempfile.TemporaryDirectory(dir=options.directory)))
        if not (root / "adapted" / "model.safetensors.index.json").exists():
            root.mkdir(parents=True, exist_ok=True)
            write_pair(root, layers=options.layers)
        if options.write_only:
            return
        sizes = {"layers": options.layers, "baseline_layers": options.baseline_layers}
        found = measure(root, **sizes, turned=not options.marks)
    if options.marks:
        print(marks(found))
    print(json.dumps(found, indent=2), file=sys.stderr if options.marks else sys.stdout)


def marks(found: dict[str, Any]) -> str:
    """Each figure beside its aim."""
    lines = [
        f"{name}: {found[name]:.4g} (aim: {'at most' if most else 'at least'} {aim}) "
        f"{'met' if (found[name] <= aim if most else found[name] >= aim) else 'MISSED'}"
        for name, (aim, most) in MARKS.items()
    ]
    return "\n".join([*lines, f"estimated: {found['fast_rows']} of {found['tensors']} tensors"])


def measure(root: Path, *, layers: int, baseline_layers: int, turned: bool = True) -> dict[str, Any]:
    factor = layers / baseline_layers
    stored = factor * baseline(root, layers=baseline_layers, turn=False)
    tall = factor * baseline(root, layers=baseline_layers, turn=True) if turned else None
    exact, exact_cpu, exact_wall, spectra = timed(lambda: run(root, precision="exact"))
    fast, fast_cpu, fast_wall, _ = timed(lambda: run(root, precision="fast"))
    cached = root / "spectra.jsonl"
    cached.write_text("".join(json.dumps(record) + "\n" for record in spectra))
    again, again_cpu, _, _ = timed(lambda: run(root, precision="exact", spectra=cached))
    two, _, two_wall, _ = timed(lambda: run(root, precision="exact", threads=2))
    assert again.rows == exact.rows == two.rows
    assert again.computed == 0
    return {
        "load_average": os.getloadavg(), "layers": layers, "tensors": len(exact.rows),
        "svdvals_as_stored_cpu_s": stored, "svdvals_always_tall_cpu_s": tall,
        "exact_cpu_s": exact_cpu, "exact_times_faster": stored / exact_cpu,
        "exact_spectra_computed": exact.computed, "exact_redone_in_double": len(spectra) - exact.computed,
        "fast_cpu_s": fast_cpu, "fast_times_faster": stored / fast_cpu,
        "fast_rows": sum(row["precision"] == "fast" for row in fast.rows),
        "spearman_of_score": correlation(exact, fast, "score"), "spearman_of_snr": correlation(exact, fast, "snr"),
        "spearman_of_svdr": correlation(exact, fast, "svdr"),
        "same_selection_at_25_percent": agreement(exact, fast, share=0.25),
        "second_job_cpu_s": again_cpu, "second_job_spectra_computed": again.computed,
        "exact_wall_one_process_s": exact_wall, "exact_wall_two_processes_s": two_wall,
        "two_processes_times_faster": exact_wall / two_wall, "fast_wall_one_process_s": fast_wall,
        **memory(root),
    }  # fmt: skip


def baseline(root: Path, *, layers: int, turn: bool) -> float:
    """CPU seconds of `svdvals` in fp32 over the first layers of both models."""
    total = 0.0
    for side in ("base", "adapted"):
        with Checkpoint.open(root / side) as checkpoint:
            for name in sorted(checkpoint.tensors):
                if int(name.split(".")[2]) >= layers:
                    continue
                began = time.process_time()
                matrix = checkpoint.read(name).float()
                torch.linalg.svdvals(matrix.T if turn and matrix.shape[0] < matrix.shape[1] else matrix)
                total += time.process_time() - began
    return total


def timed(work: Callable[[], tuple[Scores, list[dict[str, Any]]]]) -> tuple[Scores, float, float, list[dict[str, Any]]]:
    cpu, wall = time.process_time(), time.monotonic()
    scores, records = work()
    return scores, time.process_time() - cpu, time.monotonic() - wall, records


def run(
    root: Path, *, precision: str, spectra: Path | None = None, threads: int = 1, **method: Any
) -> tuple[Scores, list[dict[str, Any]]]:
    """The stage as the service runs it: reading, norms, the delta's shape, spectra, ranking, messages."""
    recipe = parse_recipe({
        "base": {"repo": "bench/base"}, "experts": [{"repo": "bench/adapted"}], "target": {"repo": "bench/out"},
        "method": {"name": "spear", "precision": precision, **method},
    })  # fmt: skip
    inputs = tuple(source(root / side) for side in ("base", "adapted"))
    task = Task(
        job_id="mrg_bench", attempt=1, recipe=recipe, inputs=inputs, work_dir=root, spectra=spectra, device="cpu",
        threads=threads,
    )  # fmt: skip
    stream = io.BytesIO()
    scores = score(task, Reporter(stream))
    said = [json.loads(line) for line in stream.getvalue().splitlines()]
    return scores, [message["record"] for message in said if message["kind"] == "spectrum"]


def memory(root: Path) -> dict[str, float]:
    """Growth of the peak resident size while scoring a layer in a process of its own, over its largest fp32 matrix."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        Path("/proc/self/clear_refs").write_text("5")
        idle = peak()
        run(root, precision="exact", modules=["model.layers.0.*"])
        os.write(writing, json.dumps([idle, peak()]).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        idle, most = json.loads(pipe.read())
    os.waitpid(child, 0)
    return {"peak_growth_mb": (most - idle) / 1e6, "peak_growth_over_largest_fp32": (most - idle) / LARGEST}


def peak() -> int:
    status = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in status if line.startswith("VmHWM")))


def correlation(one: Scores, two: Scores, key: str) -> float:
    pairs = zip(one.rows, two.rows, strict=True)
    numbers = [(first[key], second[key]) for first, second in pairs]  # type: ignore[literal-required]
    kinds = sorted({row["module_type"] for row in one.rows})
    if key == "score":
        return float(spearmanr(*zip(*numbers, strict=True)).statistic)
    within = []
    for kind in kinds:
        of_kind = [pair for pair, row in zip(numbers, one.rows, strict=True) if row["module_type"] == kind]
        within.append(float(spearmanr(*zip(*of_kind, strict=True)).statistic))
    return math.fsum(within) / len(within)


def agreement(one: Scores, two: Scores, *, share: float) -> float:
    """Share of the tensors chosen by one that the other chooses too, the top share of each module type."""

    def chosen(scores: Scores) -> set[str]:
        names: set[str] = set()
        for kind in {row["module_type"] for row in scores.rows}:
            group = sorted((-(row["score"] or 0), row["name"]) for row in scores.rows if row["module_type"] == kind)
            names |= {name for _, name in group[: math.ceil(share * len(group))]}
        return names

    return len(chosen(one) & chosen(two)) / len(chosen(one))


def source(path: Path) -> Input:
    """Digests of the names instead of the bytes: nothing is measured by hashing here."""
    files = {f.name: f"sha256:{hashlib.sha256(str(f).encode()).hexdigest()}" for f in path.iterdir()}
    return Input(repo=f"bench/{path.name}", revision="main", commit="0" * 40, path=path, digests=files)


def write_pair(root: Path, *, layers: int) -> None:
    draw, generator = random.Random(0), torch.Generator().manual_seed(0)
    index: dict[str, str] = {}
    for side in ("base", "adapted"):
        (root / side).mkdir()
        (root / side / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    for layer in range(layers):
        tensors: dict[str, dict[str, Tensor]] = {"base": {}, "adapted": {}}
        file = f"model-{layer:05d}.safetensors"
        for part, shape in SHAPES.items():
            name = f"model.layers.{layer}.{part}.weight"
            tensors["base"][name], tensors["adapted"][name] = make_matrices(shape, draw=draw, generator=generator)
            index[name] = file
        for side, own in tensors.items():
            save_file(own, root / side / file)
    for side in tensors:
        (root / side / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def make_matrices(shape: tuple[int, int], *, draw: random.Random, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    scales = torch.exp(0.3 * torch.randn(1, shape[1], generator=generator))
    strong = directions(shape, rank=64, falloff=0.7, generator=generator) * draw.uniform(2, 15) * 2
    base = (0.02 * (torch.randn(shape, generator=generator) + strong * max(shape) ** 0.5) * scales).bfloat16()
    change = torch.randn(shape, generator=generator) / max(shape) ** 0.5
    change += directions(shape, rank=128, falloff=0.5, generator=generator) * 3
    size = math.exp(draw.uniform(math.log(0.005), math.log(0.04))) * float(base.float().norm() / change.norm())
    return base, (base.float() * (1 - draw.uniform(0, 0.002)) + size * change).bfloat16()


def directions(shape: tuple[int, int], *, rank: int, falloff: float, generator: torch.Generator) -> Tensor:
    """Random directions with singular values i^-falloff."""
    left, right = (torch.linalg.qr(torch.randn(size, rank, generator=generator)).Q for size in shape)
    product: Tensor = (left * torch.arange(1, rank + 1) ** -falloff) @ right.T
    return product


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
