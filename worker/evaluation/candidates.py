"""Points between two models, made in memory: one live model whose weights are moved in place."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from worker.methods.base import CHUNK, Workspace
from worker.methods.blend import blend
from worker.methods.products import Products
from worker.methods.slerp import PARALLEL, ZERO_NORM, coefficients

Strengths = Mapping[str, float]
"""`t` by the name of a weight: 0 is the base, 1 the adapted model. What is not named is the adapted model's."""


@dataclass(frozen=True)
class _Pair:
    base: torch.Tensor
    adapted: torch.Tensor
    cosine: float


class Between:
    """A live model between `base` and `adapted`, which are of one architecture and stay as they are.

    A point costs one pass over the weights that differ from the point before. The weights equal those that a restoring
    merge writes for the same `t`, bit for bit.
    """

    def __init__(self, base: Any, adapted: Any) -> None:
        self.model = copy.deepcopy(adapted)
        self._live = dict(self.model.named_parameters())  # a tied head is the embedding, and not named again
        ours = dict(adapted.named_parameters())
        self._pairs = {name: _pair(weight.data, ours[name].data) for name, weight in base.named_parameters()}
        self._now = dict.fromkeys(self._live, 1.0)
        self._work = Workspace(device=next(iter(self._live.values())).device)

    @property
    def sizes(self) -> dict[str, int]:
        """Elements of each weight."""
        return {name: weight.numel() for name, weight in self._live.items()}

    def move(self, strengths: Strengths) -> None:
        """Make `model` the point with these strengths. Raises `KeyError` for the name of a weight that is not there."""
        for name in strengths:
            if name not in self._live:
                raise KeyError(name)
        for name, live in self._live.items():
            t = float(strengths.get(name, 1.0))
            if self._now[name] != t:
                self._write(live.data, self._pairs[name], t)
                self._now[name] = t

    def put(self, name: str, weight: torch.Tensor) -> None:
        """Give one weight any values; the next `move` undoes it."""
        self._live[name].data.copy_(weight.reshape(self._live[name].shape))
        self._now[name] = float("nan")

    @property
    def names(self) -> tuple[str, ...]:
        """The weights that have a strength."""
        return tuple(self._live)

    def ends(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """The base's and the adapted model's values of a weight."""
        return self._pairs[name].base, self._pairs[name].adapted

    def pull(self, name: str, gradient: torch.Tensor) -> float:
        """The slope by a weight's `t` of what has this gradient by the weight, at the point where the model is."""
        pair, t = self._pairs[name], self._now[name]
        base, adapted = _slopes(pair, t)
        flat = gradient.reshape(-1).float()
        ways = (torch.dot(flat, side.reshape(-1).float()).item() for side in (pair.base, pair.adapted))
        return sum(factor * way for factor, way in zip((base, adapted), ways, strict=True))

    def _write(self, live: torch.Tensor, pair: _Pair, t: float) -> None:
        if t in (0.0, 1.0):
            live.copy_(pair.adapted if t else pair.base)
            return
        factors = _factors(pair, t)
        out, base, adapted = live.view(-1), pair.base.view(-1), pair.adapted.view(-1)
        for start in range(0, len(out), CHUNK):
            part = slice(start, start + CHUNK)
            blend(self._work, (base[part], adapted[part]), factors, out=out[part])


def _pair(base: torch.Tensor, adapted: torch.Tensor) -> _Pair:
    """With the cosine of the angle between both, as vectors."""
    one, other, products = base.reshape(-1), adapted.reshape(-1), Products(Workspace())
    for start in range(0, len(one), CHUNK):
        products.add(one[start : start + CHUNK], other[start : start + CHUNK])
    norms = products.norms
    cosine = products.dot / (norms[0] * norms[1]) if min(norms) > ZERO_NORM else 1.0
    return _Pair(base=base, adapted=adapted, cosine=cosine)


def _slopes(pair: _Pair, t: float) -> tuple[float, float]:
    """The factors' derivatives by t."""
    if abs(pair.cosine) > PARALLEL:
        return -1.0, 1.0
    angle = math.acos(pair.cosine)
    return -angle * math.cos((1 - t) * angle) / math.sin(angle), angle * math.cos(t * angle) / math.sin(angle)


def _factors(pair: _Pair, t: float) -> tuple[float, float]:
    return (1 - t, t) if abs(pair.cosine) > PARALLEL else coefficients(pair.cosine, t=t)
