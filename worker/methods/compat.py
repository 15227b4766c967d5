"""mergekit 0.1.5's arithmetic, rounding by rounding, from its formulas; checked against it bit for bit.

Inputs are cast to the work dtype (mergekit's `dtype`, else the inputs' promoted dtype), and everything is rounded to it
where mergekit rounds. What needs mergekit's unstable sort or its generator's order is done on whole tensors.
"""

from functools import reduce

import torch

from worker.methods.base import Chunk, Method, NotFiniteError, Spec, Workspace
from worker.methods.draws import Draws

SLERP_CHUNK = 1024 * 1024
PARALLEL = 0.9995
ZERO_NORM = 1e-8
ZERO_L1 = 1e-7


class CompatMethod(Method):
    """A method in mergekit's arithmetic."""

    @property
    def operation(self) -> str:
        return str(self.spec.parameters["name"])

    def cast(self, stored: torch.Tensor, chunk: Chunk) -> torch.Tensor:
        """A chunk of one model in the work dtype."""
        asked = self.spec.parameters.get("dtype")
        models = (chunk.base, *chunk.experts) if self.uses_base else chunk.experts
        dtype = getattr(torch, asked) if asked else reduce(torch.promote_types, (model.dtype for model in models))
        return stored.to(dtype)


class CompatLinear(CompatMethod):
    """fp32 accumulation by fused multiply-adds in the experts' order, one division, one rounding to the work dtype."""

    uses_base = False

    def merge(self, chunk: Chunk, out: torch.Tensor) -> None:
        experts = [self.cast(expert, chunk) for expert in chunk.experts]
        weights = torch.tensor([expert["weight"] for expert in self.spec.experts], dtype=torch.float32)
        total = torch.zeros(len(chunk), dtype=torch.float32)
        for expert, weight in zip(experts, weights, strict=True):
            total.addcmul_(expert, weight.reshape(1))
        if self.spec.parameters["normalize"]:
            total.div_(weights.sum().reshape(1))
        out.copy_(total.to(experts[0].dtype))


class CompatSlerp(CompatMethod):
    """Statistics over chunks of 1 Mi elements, all in fp32; the unit vectors are multiplied, not the raw ones."""

    def __init__(self, spec: Spec, work: Workspace) -> None:
        super().__init__(spec, work)
        self._parts: tuple[list[torch.Tensor], ...] = ([], [], [])
        self._norms = (torch.ones(1), torch.ones(1))
        self._factors = (torch.ones(1), torch.zeros(1))
        self._lerp = False

    @property
    def surveys(self) -> int:
        return 2

    @property
    def grain(self) -> int:
        return SLERP_CHUNK

    @property
    def operation(self) -> str:
        return "lerp" if self._lerp else "slerp"

    def survey(self, chunk: Chunk) -> None:
        base, expert = (self.cast(model, chunk).float()[None] for model in (chunk.base, chunk.experts[0]))
        if self.turn == 0:
            self._parts[0].append(torch.linalg.vector_norm(base, dim=1, keepdim=True))
            self._parts[1].append(torch.linalg.vector_norm(expert, dim=1, keepdim=True))
        else:
            product = (base / self._norms[0]) * (expert / self._norms[1])
            self._parts[2].append(product.sum(dim=1, keepdim=True))

    def conclude(self) -> None:
        if self.turn == 0:
            norms = [torch.linalg.vector_norm(torch.stack(parts), dim=0) for parts in self._parts[:2]]
            self._norms = (_or_one(norms[0]), _or_one(norms[1]))
        else:
            self._factors = self._blend(torch.stack(self._parts[2]).sum(dim=0).clamp(-1, 1))

    def _blend(self, cosine: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        t = torch.tensor([[self.spec.parameters["t"]]], dtype=torch.float32)
        self._lerp = bool(cosine.abs() > PARALLEL)
        if self._lerp:
            return 1 - t, t
        angle = torch.acos(cosine)
        return torch.sin((1 - t) * angle) / torch.sin(angle), torch.sin(t * angle) / torch.sin(angle)

    def merge(self, chunk: Chunk, out: torch.Tensor) -> None:
        base, expert = (self.cast(model, chunk) for model in (chunk.base, chunk.experts[0]))
        mixed = self._factors[0] * base.float()[None] + self._factors[1] * expert.float()[None]
        out.copy_(mixed[0].to(base.dtype))


class CompatTaskVectors(CompatMethod):
    """task_arithmetic, ties, dare_linear and dare_ties."""

    @property
    def grain(self) -> int:
        thinned = any(expert.get("density", 1.0) < 1 for expert in self.spec.experts)
        return max(1, self.spec.elements) if thinned else 1

    @classmethod
    def draws(cls, spec: Spec) -> int:
        if not str(spec.parameters["name"]).startswith("dare"):
            return 0
        return spec.elements * len([1 for expert in spec.experts if expert["density"] < 1])

    def merge(self, chunk: Chunk, out: torch.Tensor) -> None:
        base = self.cast(chunk.base, chunk)
        deltas = torch.stack([
            self._thinned(self.cast(expert, chunk) - base, number) for number, expert in enumerate(chunk.experts)
        ])  # fmt: skip
        weights = torch.tensor([expert["weight"] for expert in self.spec.experts], dtype=deltas.dtype)[:, None]
        deltas.mul_(weights)
        mixed, divisor = self._mixed(deltas, weights)
        if self.spec.parameters["normalize"]:
            mixed /= divisor
        if self.spec.parameters["lambda"] != 1:
            mixed *= self.spec.parameters["lambda"]
        out.copy_((base + mixed).to(base.dtype))

    def _mixed(self, deltas: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.operation.endswith("ties"):
            divisor = weights.sum(dim=0)
            divisor[divisor.abs() < ZERO_NORM] = 1
            return deltas.sum(dim=0), divisor
        elected = (deltas.sum(dim=0) >= 0).to(deltas.dtype) * 2 - 1
        mask = deltas.sign() == elected
        divisor = (weights * mask).sum(dim=0)
        divisor[divisor == 0] = 1
        return (deltas * mask).sum(dim=0), divisor

    def _thinned(self, delta: torch.Tensor, number: int) -> torch.Tensor:
        density = self.spec.experts[number].get("density", 1.0)
        if density >= 1:
            return delta
        if self.operation == "ties":
            return self._trimmed(delta, density)
        return self._dropped(delta, density, number)

    def _trimmed(self, delta: torch.Tensor, density: float) -> torch.Tensor:
        if density <= 0 or delta.numel() == 0:
            if not delta.isfinite().all():  # times zero it would show; zeros in its place would hide it
                raise NotFiniteError(self.spec.name)
            return torch.zeros_like(delta)
        mask = torch.zeros_like(delta)
        # the unstable order of equal magnitudes is the point here
        order = torch.argsort(delta.abs().float(), descending=True)
        mask[order[: max(1, int(density * delta.numel()))]] = 1
        return self._rescaled(delta, mask)

    def _dropped(self, delta: torch.Tensor, density: float, number: int) -> torch.Tensor:
        wide = delta if delta.dtype == torch.bfloat16 else delta.float()
        draws = self.work.memory.setdefault("draws", Draws(self.spec.parameters["seed"]))
        earlier = sum(expert["density"] < 1 for expert in self.spec.experts[:number])
        draws.seek(self.spec.drawn + self.spec.elements * earlier)
        mask = draws.bernoulli(torch.full_like(wide, density))
        return self._rescaled(wide, mask).to(delta.dtype)

    def _rescaled(self, delta: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        masked = delta * mask
        if not self.spec.parameters.get("rescale"):
            return masked
        before, after = delta.abs().sum(), masked.abs().sum()
        return masked if before < ZERO_L1 or after < ZERO_L1 else masked * (before / after)


def _or_one(norm: torch.Tensor) -> torch.Tensor:
    return torch.where(norm > ZERO_NORM, norm, 1)
