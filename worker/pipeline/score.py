"""The stage `scoring`: singular spectra of base and adapted model, matrix by matrix, and the scores made of them."""

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from app.errors import Code, SpearError
from app.hub.tokenrows import by_token
from app.recipes import Recipe
from app.recipes.methods.spear import SpearParameters
from worker.checkpoints.open import open_model
from worker.pipeline.agreement import Agreement, agreement, known_agreement, sampled
from worker.pipeline.pair import Pair, Way
from worker.pipeline.spectra import Side, load
from worker.pipeline.spread import spread
from worker.pipeline.task import Reporter, Task
from worker.scores import Row, rank, wanted
from worker.scores.curve import Curve
from worker.scores.doubt import LEAST_AGREEMENT, judge
from worker.scores.ranking import group_of

FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
LEAST_OF_FIRST = 0.85
"""Least expected agreement of the first four tensors of a group. Four rank coarsely: a group that came to 0.99 with all
its tensors had 0.88 with these. What is let through here is judged again by all."""
ROUNDED = 0.5  # share of the norm of Δ


@dataclass(kw_only=True)
class Scores:
    """The rows, ranked but not yet selected, and what they cost: spectra computed and taken from the cache, time."""

    rows: list[Row]
    computed: int = 0
    cached: int = 0
    seconds: float = 0.0
    flops: float = 0.0
    agreement: Agreement | None = None
    """of fast scores with exact ones"""
    warnings: list[str] = field(default_factory=list)
    curves: dict[str, Curve] = field(default_factory=dict)
    by_side: Counter[str] = field(default_factory=Counter)


def score(task: Task, reporter: Reporter) -> Scores:
    """Score every tensor that the recipe's module list names, base against the first expert.

    `task.threads` processes with one thread each share the tensors. Memory, for each: one matrix pair as stored, a
    block of it as fp64, and a Gram matrix of the short side twice. Raises `SpearError`: `nothing_to_score`,
    `tensor_missing`, `shape_mismatch`, `nonfinite_tensor` (naming tensor and repo).
    """
    began = time.monotonic()
    method, device = parameters(task), device_of(task)
    places = [source.path for source in (task.base, task.experts[0])]
    with open_model(places[0], base=places[0]) as one, open_model(places[1], base=places[0]) as two:
        base = Side(source=task.base, checkpoint=one, role="base")
        adapted = Side(source=task.experts[0].over(task.base), checkpoint=two, role="adapted")
        names = _scored_names(base, adapted, method=method)
        _refuse_matched_rows(task, names)
        pair = Pair(base=base, adapted=adapted, method=method, device=device, known=load(task.spectra))
        processes = task.threads if device == "cpu" else 1  # a CUDA context does not survive a fork
        outcome = _score_all(names, pair=pair, processes=processes, reporter=reporter)
        outcome.rows = rank(outcome.rows, weights=method.weights.model_dump(), ranking=method.ranking)
        if method.precision == "fast":
            outcome.agreement = _agreement(outcome, pair=pair, processes=processes, reporter=reporter)
    outcome.warnings += _warnings(outcome.rows)
    outcome.seconds = time.monotonic() - began
    return outcome


def _score_all(names: list[str], *, pair: Pair, processes: int, reporter: Reporter) -> Scores:
    """All rows by name, in the recipe's way."""
    way = pair.method.precision
    outcome = Scores(rows=[])
    if processes > 1:
        pair.load_loops(names)
    costs = {name: pair.cost(name, way=way) for name in names}
    reporter.stage("scoring", total=math.fsum(costs.values()), unit="flop")
    collect = partial(_collect, pair=pair, costs=costs, processes=processes, outcome=outcome, reporter=reporter)
    if way == "fast":
        _score_fast(names, pair=pair, costs=costs, outcome=outcome, collect=collect)
    else:
        collect(names, way=way)
    outcome.rows.sort(key=lambda row: row["name"])
    return outcome


def _score_fast(
    names: list[str], *, pair: Pair, costs: dict[str, float], outcome: Scores, collect: Callable[..., None]
) -> None:
    """Estimates; exactly, and within a ranking group all of them, where estimates would not rank them well enough.

    Four tensors of each group go first: where these are far from it, nobody estimates the rest for nothing.
    """
    groups = {name: pair.groups(name) for name in names}
    first = _first_of_each(groups)
    collect(first, way="fast")
    doubted = _doubtful_groups(outcome, method=pair.method, least=LEAST_OF_FIRST)
    collect([name for name in names if name not in first and not groups[name] & doubted], way="fast")
    doubted |= _doubtful_groups(outcome, method=pair.method, least=LEAST_AGREEMENT)
    again = [name for name in names if groups[name] & doubted]
    if again:
        outcome.warnings.append(
            f"fast estimates would not have ranked some tensors well enough; {len(again)} of {len(names)} were scored "
            "exactly"
        )
        costs |= dict.fromkeys({row["tensor"] for row in outcome.rows}, 0.0)  # what was announced of these is done
        outcome.rows = [row for row in outcome.rows if row["tensor"] not in again]
        collect(again, way="exact")


def _collect(
    names: list[str], *, pair: Pair, way: Way, costs: dict[str, float], processes: int, outcome: Scores,
    reporter: Reporter,
) -> None:  # fmt: skip
    """Score `names`, the costliest first, so that no process is left alone with a large one at the end."""
    order = sorted(names, key=lambda name: (-costs[name], name))
    for scored in spread(partial(pair.score, way=way), order, processes=processes):
        for record in scored.records:
            reporter.spectrum(record)
        outcome.rows.extend(scored.rows)
        outcome.computed += scored.computed
        outcome.cached += scored.cached
        outcome.curves |= scored.curves
        outcome.by_side.update(scored.by_side)
        name = scored.rows[0]["tensor"]
        outcome.flops += costs[name]
        reporter.step(done=outcome.flops, name=name, cached=scored.cached)


def _agreement(outcome: Scores, *, pair: Pair, processes: int, reporter: Reporter) -> Agreement | None:
    """By the cache; else by a few tensors, whose exact spectra are computed for it and kept."""
    known = known_agreement(outcome.rows, pair=pair)
    chosen = None if known else sampled(outcome.rows, pair=pair)
    if chosen is None:
        return known
    kind, names = chosen
    costs, true = dict.fromkeys(names, 0.0), Scores(rows=[], flops=outcome.flops)  # not announced as the stage's work
    _collect(names, pair=pair, way="exact", costs=costs, processes=processes, outcome=true, reporter=reporter)
    outcome.computed, outcome.cached = outcome.computed + true.computed, outcome.cached + true.cached
    outcome.by_side.update(true.by_side)
    sample = f"{len(names)} of type {kind}, spread by score, scored exactly for the comparison"
    return agreement(outcome.rows, exact=true.rows, pair=pair, sample=sample)


def _first_of_each(groups: Mapping[str, frozenset[str]]) -> list[str]:
    """Four tensors of the same groups, spread over them."""
    alike: dict[frozenset[str], list[str]] = {}
    for name, own in groups.items():
        alike.setdefault(own, []).append(name)
    return sorted({each[i * (len(each) - 1) // 3] for each in alike.values() for i in range(4)})


def _doubtful_groups(outcome: Scores, *, method: SpearParameters, least: float) -> frozenset[str]:
    """The ranking groups with estimates whose expected agreement is under `least`; the rows' doubts are filled in."""
    members: dict[str, list[Row]] = {}
    for row in outcome.rows:
        members.setdefault(group_of(row, ranking=method.ranking), []).append(row)
    doubted: set[str] = set()
    outcome.rows = []
    for group, rows in members.items():
        if any(row["precision"] == "fast" for row in rows):
            rows, agreement = judge(rows, weights=method.weights.model_dump())  # noqa: PLW2901
            if agreement < least:
                doubted.add(group)
        outcome.rows += rows
    return frozenset(doubted)


def parameters(task: Task) -> SpearParameters:
    """The recipe's method, which this stage is only asked for when it is `spear`."""
    method: Any = task.method
    if not isinstance(method, SpearParameters):
        raise TypeError(f"scoring needs the parameters of spear, not {type(method).__name__}")
    return method


def modules_of(method: SpearParameters) -> tuple[str, ...]:
    """The module list with the groups that are switched on beside it."""
    groups = (("embedding", method.embedding), ("head", method.head))
    return (*method.modules, *(name for name, on in groups if on))


def device_of(task: Task) -> str:
    """`cuda` or `cpu`, `auto` resolved."""
    if task.device != "auto":
        return task.device
    return "cuda" if torch.cuda.is_available() else "cpu"


def _refuse_matched_rows(task: Task, names: list[str]) -> None:
    """Scores compare the models as they are stored: rows that are matched by token mean something else in each."""
    matched = isinstance(task.recipe, Recipe) and task.recipe.tokenizer_input is not None
    name = next((name for name in names if by_token(name)), None) if matched else None
    if name:
        raise SpearError(
            Code.INVALID_RECIPE, f"{name} cannot be scored while its rows are matched by token (tokenizer_source)",
            pointer="/tokenizer_source", tensor=name,
        )  # fmt: skip


def _scored_names(base: Side, adapted: Side, *, method: SpearParameters) -> list[str]:
    """The tensors to score, in the order of their names; both models must have them in the same shape."""
    modules = modules_of(method)
    tensors = base.checkpoint.tensors
    floats = {name: len(info.shape) for name, info in sorted(tensors.items()) if info.dtype in FLOATS}
    names = [name for name, ndim in floats.items() if wanted(name, ndim=ndim, modules=modules)]
    if not names:
        raise SpearError(
            Code.NOTHING_TO_SCORE, f"no 2-D float tensor of {base.source.repo} matches {', '.join(modules)}",
            repo=base.source.repo, pointer="/method/modules",
        )  # fmt: skip
    for name in names:
        _same_shape(name, base=base, adapted=adapted)
    return names


def _warnings(rows: list[Row]) -> list[str]:
    """What a person should know before believing the scores."""
    endless = [row["name"] for row in rows if "snr" in row["infinite"]]
    moved = [row for row in rows if row["low_rank_delta"] is not None]
    low = [row for row in moved if row["low_rank_delta"]]
    rounded = [row for row in moved if (row["rounding_share"] or 0) > ROUNDED]
    said = []
    if endless:
        said.append(
            f"the SNR of {len(endless)} tensors is infinite, {endless[0]} among them: nothing in their spectrum counts "
            "as noise (at least half of it is zero), and they rank above all others by SNR and SWCI"
        )
    if 2 * len(low) > len(moved):
        said.append(
            f"the change of {len(low)} of {len(moved)} changed tensors has a low rank, as a merged LoRA has: spectra "
            "tell little about it, and filters of the spectrum (dg_hard) leave it as it is"
        )
    if 2 * len(rounded) > len(moved):
        said.append(
            f"in {len(rounded)} of {len(moved)} changed tensors over half of the change's norm may be the rounding "
            "of the stored weights"
        )
    return said


def _same_shape(name: str, *, base: Side, adapted: Side) -> None:
    repo = adapted.source.repo
    if name not in adapted.checkpoint.tensors:
        raise SpearError(Code.TENSOR_MISSING, f"{repo} has no tensor {name}", repo=repo, tensor=name)
    one, two = (tuple(side.checkpoint.tensors[name].shape) for side in (base, adapted))
    if one != two:
        message = f"{name} is {list(one)} in {base.source.repo} and {list(two)} in {repo}"
        raise SpearError(Code.SHAPE_MISMATCH, message, repo=repo, tensor=name)
