"""One expert as it is, or scaled."""

import torch

from worker.methods.base import Chunk, Method


class Passthrough(Method):
    """`scale · expert`; without a scale the expert's values unchanged."""

    name = "passthrough"
    uses_base = False

    def merge(self, chunk: Chunk, out: torch.Tensor) -> None:
        scale = self.spec.parameters["scale"]
        expert = chunk.experts[0]
        out.copy_(expert if scale is None else self.work.load("scaled", expert).mul_(scale))
