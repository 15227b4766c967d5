"""LiNeS: task vectors scaled linearly with depth. Source: Wang et al. (arXiv 2410.17146, ICLR 2025)."""

import torch

from worker.methods.base import Chunk, Method


class Lines(Method):
    """`base + (alpha + beta·depth)·(expert - base)`, depth 0 (first layer, or none) to 1 (last)."""

    name = "lines"

    def merge(self, chunk: Chunk, out: torch.Tensor) -> None:
        parameters = self.spec.parameters
        beta = 1 - parameters["alpha"] if parameters["beta"] is None else parameters["beta"]
        base = self.work.load("base", chunk.base)
        delta = self.work.load("delta", chunk.experts[0]).sub_(base)
        out.copy_(base.add_(delta, alpha=parameters["alpha"] + beta * self.spec.depth))
