"""NearSwap. Source: huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001, as mergekit has it."""

import torch

from worker.methods.base import Chunk, Method

LEAST = 1e-6


class NearSwap(Method):
    """`w·expert + (1-w)·base` with `w = clip(t / |expert - base|, 0, 1)`: values that are near are swapped."""

    name = "nearswap"

    def merge(self, chunk: Chunk, out: torch.Tensor) -> None:
        base = self.work.load("base", chunk.base)
        delta = self.work.load("delta", chunk.experts[0]).sub_(base)
        weight = torch.abs(delta, out=self.work.take("weight", len(chunk)))
        weight.clamp_min_(LEAST).reciprocal_().mul_(self.spec.parameters["t"]).clamp_(0, 1)
        out.copy_(base.addcmul_(delta, weight))
