"""SCE: select, calculate, erase. Source: Wan et al., FuseChat (arXiv 2408.07990), as mergekit has it."""

from math import isfinite

import torch

from worker.methods.base import Chunk, Method, NotFiniteError, Spec, Workspace
from worker.methods.magnitude import Selection, Trim

LEAST_WEIGHT = 1e-6


class Sce(Method):
    """Keeps the entries whose variance over the task vectors is among the top share of those that vary at all.

    The experts' weights are the mean squares of what is left; entries against the elected sign (that of the plain sum,
    zero counts as plus) are erased; the rest is averaged. Of equal variances those of lower index are kept.
    """

    name = "sce"

    def __init__(self, spec: Spec, work: Workspace) -> None:
        super().__init__(spec, work)
        self._share = float(spec.parameters["select_topk"])
        self._selection = Selection(1, elements=max(1, spec.elements), work=work)
        self._varying = 0
        self._keep = 0
        self._trim: Trim | None = None
        self._squares = [0.0] * len(spec.experts)
        self._weights: list[float] = []

    @property
    def _selects(self) -> bool:
        return 0 < self._share < 1

    @property
    def surveys(self) -> int:
        """Two to find the variance's threshold, one for the mean squares."""
        return 3 if self._selects else 1

    def survey(self, chunk: Chunk) -> None:
        if self._selects and self.turn < 2:
            variance = self._variance(self._deltas(chunk))
            if self.turn == 0:
                self._varying += int(torch.count_nonzero(variance))
            self._selection.count(variance, lower=self.turn == 1)
            return
        for number, delta in enumerate(self._selected(chunk)):
            self._squares[number] += torch.dot(delta, delta).item()

    def conclude(self) -> None:
        if self._selects and self.turn < 2:
            if self.turn == 0:
                self._keep = int(self._varying * self._share)
                self._selection.aim(max(1, self._keep))
            self._selection.conclude_count(lower=self.turn == 1)
            return
        means = [square / max(1, self.spec.elements) for square in self._squares]
        total = sum(means)
        uniform = abs(total) < LEAST_WEIGHT
        self._weights = [1 / len(means) if uniform else mean / total for mean in means]

    def merge(self, chunk: Chunk, out: torch.Tensor) -> None:
        deltas = self._selected(chunk)
        sign = self.work.take("sign", len(chunk)).zero_()
        for delta in deltas:
            sign.add_(delta)
        sign.sign_().add_(0.5).sign_()
        mixed = self.work.take("mixed", len(chunk)).zero_()
        divisor = self.work.take("divisor", len(chunk)).zero_()
        for delta, weight in zip(deltas, self._weights, strict=True):
            mixed.add_(delta.mul_(sign).clamp_min_(0), alpha=weight)
            divisor.add_(delta.sign_(), alpha=weight)
        mixed.div_(divisor.clamp_min_(LEAST_WEIGHT)).mul_(sign)
        out.copy_(mixed.add_(self.work.load("base", chunk.base)))

    def _deltas(self, chunk: Chunk) -> list[torch.Tensor]:
        base = self.work.load("base", chunk.base)
        return [self.work.load(f"delta{i}", expert).sub_(base) for i, expert in enumerate(chunk.experts)]

    def _variance(self, deltas: list[torch.Tensor]) -> torch.Tensor:
        """The population variance over the experts, per entry; exactly zero where all are equal.

        It is that of the differences from the first: the mean of equal numbers may be a rounding off them.
        """
        first, share = deltas[0], 1 / len(deltas)
        apart = self.work.take("apart", len(first))
        mean = self.work.take("mean", len(first)).zero_()
        for delta in deltas[1:]:
            mean.add_(torch.sub(delta, first, out=apart), alpha=share)
        variance = torch.mul(mean, mean, out=self.work.take("variance", len(first))).mul_(share)
        for delta in deltas[1:]:
            torch.sub(delta, first, out=apart).sub_(mean)
            variance.addcmul_(apart, apart, value=share)
        return variance

    def _selected(self, chunk: Chunk) -> list[torch.Tensor]:
        deltas = self._deltas(chunk)
        if self._share >= 1:
            return deltas
        if self._keep == 0:
            if not all(isfinite(delta.abs().max().item()) for delta in deltas):
                raise NotFiniteError(self.spec.name)
            return [delta.zero_() for delta in deltas]
        if chunk.start == 0:
            self._trim = Trim(self._selection, self.work)
        assert self._trim
        mask = self._variance(deltas)
        self._trim(mask, chunk.start)
        mask.sign_()
        return [delta.mul_(mask) for delta in deltas]
