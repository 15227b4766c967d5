"""How alike task vectors are, and whether that goes with the gain of merging them."""

from collections.abc import Iterable, Sequence
from itertools import permutations
from math import sqrt

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from scipy.stats import rankdata, spearmanr

EXACT = 8
"""up to so many points, the p-value is of all orders (8! = 40,320); beyond, of Student's t"""
_EPSILON = 1e-12


class Rank(BaseModel):
    """Spearman's rho of `n` points and its two-sided p-value; nulls where it is not defined (a constant, or n < 3)."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    rho: float | None
    p: float | None
    n: int


class Gram:
    """Inner products of task vectors `τᵢ = θᵢ - θ₀` in fp64, gathered tensor by tensor."""

    def __init__(self, experts: int) -> None:
        self.products = torch.zeros(experts, experts, dtype=torch.float64)

    def add(self, base: torch.Tensor, experts: Sequence[torch.Tensor]) -> None:
        """One tensor, or a part of one, of the base and of every expert."""
        under = base.reshape(-1).double()
        deltas = torch.stack([expert.reshape(-1).double() - under for expert in experts])
        self.products += deltas @ deltas.T

    def distance(self, i: int, j: int) -> float:
        """‖τᵢ - τⱼ‖₂."""
        square = float(self.products[i, i] + self.products[j, j] - 2 * self.products[i, j])
        return sqrt(max(0.0, square))

    def cosine(self, i: int, j: int) -> float | None:
        """cos(τᵢ, τⱼ); none where one of them is zero."""
        norms = self.norm(i) * self.norm(j)
        return float(self.products[i, j]) / norms if norms > _EPSILON else None

    def norm(self, i: int) -> float:
        return sqrt(float(self.products[i, i]))


def spearman(xs: Iterable[float], ys: Iterable[float]) -> Rank:
    """Rho over average ranks. Source: Spearman (1904); for few points, the exact permutation test (Pitman 1937)."""
    left, right = rankdata(list(xs)), rankdata(list(ys))
    count = len(left)
    if count < 3 or len(set(left)) == 1 or len(set(right)) == 1:
        return Rank(rho=None, p=None, n=count)
    if count > EXACT:
        found = spearmanr(left, right)
        return Rank(rho=float(found.statistic), p=float(found.pvalue), n=count)
    centred = left - left.mean(), right - right.mean()
    orders = np.array(list(permutations(centred[1])))
    products = orders @ centred[0]
    seen = float(centred[0] @ centred[1])
    rho = seen / float(np.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum()))
    return Rank(rho=rho, p=float(np.mean(np.abs(products) >= abs(seen) - 1e-9)), n=count)
