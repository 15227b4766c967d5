"""Default mode against mergekit 0.1.5: what may differ, element by element, and what random masks have in common."""

from collections.abc import Callable
from math import sqrt
from pathlib import Path
from typing import Any

import torch

from worker.checkpoints.reader import Checkpoint

CASES: list[tuple[str, dict[str, Any], int]] = [
    ("linear", {"normalize": True}, 3), ("linear", {"normalize": False}, 2),
    ("slerp", {"t": [{"filter": "self_attn", "value": [0.0, 0.3, 1.0]}, {"value": 0.6}]}, 1), ("slerp", {"t": 0.25}, 1),
    ("task_arithmetic", {"lambda": 0.7}, 2), ("task_arithmetic", {"normalize": True}, 3),
    ("ties", {"density": 0.5}, 2), ("ties", {"density": [0.2, 0.8], "lambda": 0.9, "rescale": True}, 3),
    ("dare_linear", {"density": 1.0}, 2), ("dare_ties", {"density": 1.0}, 3),
    ("della_linear", {"density": 1.0}, 2), ("della", {"density": 1.0}, 3),
    ("breadcrumbs", {"density": 0.5, "gamma": 0.02}, 2), ("breadcrumbs_ties", {"density": 0.9, "gamma": 0.05}, 3),
    ("nuslerp", {}, 2), ("nuslerp", {"nuslerp_flatten": False}, 2),
    ("nuslerp", {"nuslerp_flatten": False, "nuslerp_row_wise": True}, 2), ("nuslerp", {"task_vectors": True}, 2),
    ("multislerp", {}, 3), ("multislerp", {"task_vectors": True}, 3), ("karcher", {"max_iter": 20}, 3),
    ("model_stock", {}, 3), ("model_stock", {"filter_wise": True}, 2), ("sce", {}, 3), ("sce", {"select_topk": 0.4}, 3),
    ("nearswap", {"t": 0.001}, 1), ("arcee_fusion", {}, 1), ("passthrough", {"scale": 0.7}, 1),
]  # fmt: skip
RANDOM: list[tuple[str, dict[str, Any], int]] = [
    (name, {"density": density, "rescale": rescale}, 1)
    for name in ("dare_linear", "della_linear")
    for density, rescale in ((0.5, False), (0.3, True))
]
"""Compared by how many entries they keep, and by the L1 norm where they rescale."""
INTEGERS = {torch.bfloat16: torch.int16, torch.float16: torch.int16, torch.float32: torch.int32}
NOISE = {"multislerp": 2**-15, "slerp": 2**-17, "nuslerp": 2**-17, "sce": 2**-14}
"""What mergekit adds, as part of a tensor's largest value: multislerp's tangent step is zero but for rounding; norms
of a million entries, summed in fp32, give slerp and nuslerp another angle (4e-6 to 6e-6 off, where ours is 3e-7 and
3e-8 from fp64); which of two equal variances sce takes changes the weights of all entries."""
SAMPLED = 1_000_000
"""Beyond so many entries mergekit's arcee_fusion estimates its quartiles from a random sample."""


def far(left: Path, right: Path, *, method: dict[str, Any], inputs: list[Path]) -> tuple[int, int, int, int]:
    """Elements more than one rounding apart, those that differ at all, those left out of account, all elements.

    What differs by less than a small part of the tensor's largest value counts as near: base + delta cancels there.
    """
    noise = NOISE.get(method["name"], 2**-18)
    apart = unequal = aside = total = 0
    with Checkpoint.open(left) as one, Checkpoint.open(right) as other:
        assert one.tensors.keys() == other.tensors.keys(), one.tensors.keys() ^ other.tensors.keys()
        for name in one.tensors:
            a, b = one.read(name), other.read(name)
            assert a.dtype == b.dtype, (name, a.dtype, b.dtype)
            free = unsettled(name, method=method, inputs=inputs).view(a.shape)
            steps = (a.view(INTEGERS[a.dtype]).long() - b.view(INTEGERS[b.dtype]).long()).abs()
            slack = max(noise, 2 / a.numel()) if "select_topk" in method else noise  # a tie is one entry of so many
            tiny = (a.float() - b.float()).abs() <= b.float().abs().max() * slack
            apart += int(((steps > 1) & ~tiny & ~free).sum())
            unequal += int(((steps > 0) & ~free).sum())
            aside += int(free.sum())
            total += a.numel()
    return apart, unequal, aside, total


def unsettled(name: str, *, method: dict[str, Any], inputs: list[Path]) -> torch.Tensor:
    """Where the two may differ by intention: entries at a threshold, or chosen by a rounding."""
    models, row = [], 1
    for path in inputs:
        with Checkpoint.open(path) as checkpoint:
            models.append(checkpoint.read(name).float().view(-1))
            row = checkpoint.tensors[name].shape[-1]
    deltas = [model - models[0] for model in models[1:]]
    find = _UNSETTLED.get(method["name"])
    if method["name"] == "arcee_fusion":
        return _by_importance(models[1], models[0], row=row)
    return find(deltas, method) if find else torch.zeros(len(models[0]), dtype=torch.bool)


def _by_rank(deltas: list[torch.Tensor], method: dict[str, Any]) -> torch.Tensor:
    size = len(deltas[0])
    free = torch.zeros(size, dtype=torch.bool)
    for delta in deltas:
        density = method["density"]
        keep = int(density * size) if not isinstance(density, list) else 0
        smallest = max(0, size - keep - int(method.get("gamma", 0) * size))
        ranks = [size - smallest, size - smallest - keep] if "gamma" in method else [max(1, keep)]
        if isinstance(density, list):  # over depth: any rank may be the threshold, so every magnitude that is shared
            free |= _shared(delta)
            continue
        ordered = delta.abs().sort(descending=True).values
        for rank in ranks:
            for edge in ordered[max(0, rank - 1) : rank + 1].tolist():
                free |= delta.abs() == edge
    return free


def _shared(delta: torch.Tensor) -> torch.Tensor:
    """Entries whose magnitude another entry has too."""
    _, inverse, counts = torch.unique(delta.abs(), return_inverse=True, return_counts=True)
    shared: torch.Tensor = counts[inverse] > 1
    return shared


def _by_variance(deltas: list[torch.Tensor], method: dict[str, Any]) -> torch.Tensor:
    share = method.get("select_topk", 1.0)
    variance = torch.stack(deltas).double().var(dim=0, unbiased=False)
    keep = int(int((variance != 0).sum()) * share)
    if share >= 1 or keep == 0:
        return torch.zeros(len(deltas[0]), dtype=torch.bool)
    edge = variance.sort(descending=True).values[keep - 1]
    return (variance - edge).abs() <= edge * 1e-5


def _by_importance(expert: torch.Tensor, base: torch.Tensor, *, row: int) -> torch.Tensor:
    """Where rounding decides: the formula in fp32, as mergekit has it, takes another choice than in fp64."""
    if len(base) > SAMPLED:
        return torch.ones(len(base), dtype=torch.bool)
    kept = []
    for dtype in (torch.float32, torch.float64):
        new, old = (torch.softmax(model.view(-1, row).to(dtype), dim=-1) + 1e-8 for model in (expert, base))
        divergence = (new * (new / old).log()).sum(dim=-1, keepdim=True)
        importance = ((expert - base).view(-1, row).abs() * divergence).view(-1)
        first, median, third = importance.sort().values[[int(q * (len(base) - 1)) for q in (0.25, 0.5, 0.75)]]
        threshold = median + 1.5 * (third - first)
        kept.append(importance >= threshold)
        near = (importance - threshold).abs() <= threshold * 1e-4
    differs: torch.Tensor = near | (kept[0] != kept[1])
    return differs


_UNSETTLED: dict[str, Callable[..., torch.Tensor]] = {
    "ties": _by_rank, "breadcrumbs": _by_rank, "breadcrumbs_ties": _by_rank, "sce": _by_variance,
}  # fmt: skip


def masks(left: Path, right: Path, *, weight: float, method: dict[str, Any], inputs: list[Path]) -> tuple[str, bool]:
    """How many entries both keep of those that could be kept, in standard deviations from the density; and whether the
    L1 norm of the change is that of the whole task vector, where they rescale."""
    scores, norms = [], []
    for path in (left, right):
        kept = possible = 0
        before = after = 0.0
        with Checkpoint.open(path) as merged, Checkpoint.open(inputs[0]) as base, Checkpoint.open(inputs[1]) as expert:
            for name in merged.tensors:
                b, e = base.read(name).float(), expert.read(name).float()
                visible = b + weight * (e - b) != b
                change = (merged.read(name).float() - b)[visible]
                kept, possible = kept + int(change.count_nonzero()), possible + int(visible.sum())
                before += float((weight * (e - b)).double().abs().sum())
                after += float(change.double().abs().sum())
        density = method["density"]
        scores.append((kept - density * possible) / sqrt(possible * density * (1 - density)))
        norms.append(after / before)
    fits = all(abs(score) < 5 for score in scores)
    if method["rescale"]:
        fits = fits and all(abs(norm - 1) < 2e-3 for norm in norms)
    words = f"kept {scores[0]:+.2f} and {scores[1]:+.2f} sd from the density, L1 {norms[0]:.5f} and {norms[1]:.5f}"
    return words, fits
