"""The honest controls: what a selection by score has to beat, at the same strength and of the same size.

Each is a candidate between base and adapted model, to be measured in memory: the uniform curve, tensors drawn at random
with as many parameters, the embedding in or out as in the selection or forced in, the ranking by relative change
alone, and DG-Hard (arXiv 2605.20296).
"""

import mmap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from worker.evaluation.candidates import Between, Strengths
from worker.methods import Chunk, Spec, Workspace, load_all
from worker.scores import Row, choose, place, rank
from worker.scores.modules import EMBEDDING, HEAD
from worker.scores.selection import Rules

UNIFORM = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)
SEEDS = (1, 2, 3)
DG_HARD = {"scale": 1.0, "min_elements": 1024}
"""dg_hard's own defaults"""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A point to measure. `filtered`: the adapted side is DG-Hard's result instead of the adapted model."""

    name: str
    label: str
    strengths: Strengths
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    filtered: bool = False

    def share(self, sizes: Mapping[str, int]) -> float:
        """Of all parameters, those that are not the adapted model's."""
        if self.filtered:
            return 1.0
        moved = sum(size for name, size in sizes.items() if self.strengths.get(name, 1.0) != 1)
        return moved / sum(sizes.values())


def uniform(names: Sequence[str], *, ts: Sequence[float] = UNIFORM) -> Iterator[Candidate]:
    """The curve of one strength for all weights."""
    for t in ts:
        strengths = dict.fromkeys(names, t)
        yield Candidate(name="uniform", label=f"uniform t = {t:g}", strengths=strengths, settings={"t": t})


def at_random(
    sizes: Mapping[str, int], selection: Strengths, *, t: float, embedding: bool, seeds: Sequence[int] = SEEDS
) -> Iterator[Candidate]:
    """Tensors drawn until they have about as many parameters as the selection's.

    Embedding and head are in where the selection has them and out where it has not; with `embedding` they are in
    whatever the selection has, and count.
    """
    own = {name for name in sizes if place(name).module_type in (EMBEDDING, HEAD)}
    forced = own if embedding else own & set(selection)
    wanted = sum(sizes[name] for name in set(selection) | forced if name in sizes)
    name = "random_embedding" if embedding else "random"
    for seed in seeds:
        drawn = sorted([*forced, *_drawn(sizes, out=own, left=wanted - sum(sizes[one] for one in forced), seed=seed)])
        label = f"random tensors{' and the embedding' if embedding else ''}, seed {seed}"
        yield Candidate(
            name=name, label=label, strengths=dict.fromkeys(drawn, t), settings={"t": t, "tensors": len(drawn)},
            seed=seed,
        )


def by_relative_change(
    rows: Sequence[Row], *, others: Sequence[Row], rules: Rules, ranking: str = "module_type"
) -> Candidate:
    """The same rules on the ranking by relative change alone."""
    ranked = rank(rows, weights={"relative_change": 1.0}, ranking=ranking)
    chosen = choose(ranked, others=others, rules=rules).decisions
    return Candidate(
        name="relative_change", label="relative change alone", strengths=chosen, settings={"t": rules.t}
    )


def dg_hard(names: Sequence[str], *, ts: Sequence[float] = (1.0, 0.8, 0.6)) -> Iterator[Candidate]:
    """DG-Hard's result (t = 1), and on the way from the base to it."""
    for t in ts:
        yield Candidate(
            name="dg_hard", label=f"dg_hard, t = {t:g}", strengths=dict.fromkeys(names, t),
            settings={"t": t, **DG_HARD},
            filtered=True,
        )


def matched(
    sizes: Mapping[str, int], decisions: Strengths, rows: Sequence[Row], *, others: Sequence[Row], rules: Rules
) -> list[Candidate]:
    """All controls of a selection, each at the selection's t."""
    names, live = list(sizes), {name: t for name, t in decisions.items() if name in sizes}
    found = [*uniform(names), *dg_hard(names)]
    if live:
        for embedding in (False, True):
            found += at_random(sizes, live, t=rules.t, embedding=embedding)
    if rows:
        change = by_relative_change(rows, others=others, rules=rules, ranking=rules.ranking)
        found.append(replace(change, strengths={name: t for name, t in change.strengths.items() if name in sizes}))
    return found


class Filtered:
    """Between the base and DG-Hard's result, whose weights are computed once, and held.

    They lie in memory that is shared with processes that are forked after `reserve`: whichever of them computes a
    weight, all have it.
    """

    def __init__(self, between: Between) -> None:
        self.between = between
        self._weights: dict[str, torch.Tensor] = {}

    def reserve(self) -> None:
        """Room for the weights on a processor; from here on `fill` has to come before a filtered candidate."""
        for name in self.between.names:
            like = self.between.ends(name)[1]
            room = mmap.mmap(-1, max(1, like.nbytes))  # anonymous and shared (mmap(2)); given back with the tensor
            self._weights[name] = torch.frombuffer(room, dtype=like.dtype, count=like.numel()).view(like.shape)

    def fill(self, name: str) -> None:
        """Compute one weight."""
        self._weights[name].copy_(filtered(name, *self.between.ends(name)))

    def move(self, candidate: Candidate) -> None:
        """Make the live model the candidate."""
        if not candidate.filtered:
            self.between.move(candidate.strengths)
            return
        self.between.move({})
        for name, t in candidate.strengths.items():
            base, adapted = self.between.ends(name)
            if name not in self._weights:
                self._weights[name] = filtered(name, base, adapted)
            self.between.put(name, torch.lerp(base.float(), self._weights[name].float(), t).to(base.dtype))


def filtered(name: str, base: torch.Tensor, adapted: torch.Tensor) -> torch.Tensor:
    """DG-Hard's result for one weight."""
    out = torch.empty_like(adapted).reshape(-1)
    chunk = Chunk(0, base.numel(), base.reshape(-1), (adapted.reshape(-1),))
    with base.device:  # where the method makes its own tensors
        method = load_all()["dg_hard"].made_for(Spec(name, tuple(base.shape), DG_HARD), Workspace(device=base.device))
        while method.turn < method.surveys:
            method.survey(chunk)
            method.conclude()
            method.turn += 1
        method.merge(chunk, out)
    return out.view(adapted.shape)


def _drawn(sizes: Mapping[str, int], *, out: set[str], left: int, seed: int) -> list[str]:
    """Names in random order, each taken where it brings the sum nearer to `left`."""
    names = sorted(set(sizes) - out)
    taken = []
    for i in np.random.default_rng(seed).permutation(len(names)):
        size = sizes[names[i]]
        if abs(left - size) < left:
            taken.append(names[i])
            left -= size
    return taken
