"""What the restoration did, measured: losses on held-out text, beside uniform interpolation as the control."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from benchmarks.demo.texts import HELD_OUT_SEED, problems, speeches

GENERAL_BLOCKS, DOMAIN_BLOCKS, BATCH = 8, 4, 4
CURVE = (0.9, 0.8, 0.7, 0.5)
"""uniform interpolation at these t, as everywhere: 0 is the base, 1 the adapted model"""

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Loss:
    """Nats per token on held-out text."""

    general: float
    domain: float


@dataclass(frozen=True)
class Measured:
    """Base, adapted and restored model, and uniform interpolations by their t; `strength` is the matched one's."""

    base: Loss
    adapted: Loss
    restored: Loss
    uniform: dict[float, Loss]
    strength: float

    def undone(self, loss: Loss) -> float:
        """The share of the forgetting that is undone: 0 for the adapted model, 1 for the base."""
        return (self.adapted.general - loss.general) / (self.adapted.general - self.base.general)

    def kept(self, loss: Loss) -> float:
        """The share of the domain gain that is kept: 1 for the adapted model, 0 for the base."""
        return (self.base.domain - loss.domain) / (self.base.domain - self.adapted.domain)

    def uniform_undone(self, *, kept: float) -> float:
        """What uniform interpolation undoes where it keeps so much of the gain: read off between its points."""
        points = [(1.0, 0.0), *((self.kept(loss), self.undone(loss)) for loss in self.uniform.values())]
        return float(np.interp(kept, *zip(*sorted(points), strict=True)))

    @property
    def forgets(self) -> bool:
        """Whether there was anything to restore, and anything to keep."""
        return self.adapted.general > self.base.general and self.adapted.domain < self.base.domain


class Scale:
    """Measures any weights of one architecture on the same held-out text."""

    def __init__(self, folder: Path) -> None:
        torch.set_num_threads(min(2, os.cpu_count() or 1))
        tokenizer = AutoTokenizer.from_pretrained(folder)
        self._general = speeches(tokenizer, blocks=GENERAL_BLOCKS)
        self._domain = problems(tokenizer, blocks=DOMAIN_BLOCKS, seed=HELD_OUT_SEED)
        self._model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)

    def loss(self, weights: Weights) -> Loss:
        self._model.load_state_dict(weights)
        return Loss(general=self._mean(self._general), domain=self._mean(self._domain))

    def _mean(self, blocks: torch.Tensor) -> float:
        """Mean negative log-likelihood; bfloat16 arithmetic, float32 from the logits on."""
        with torch.inference_mode():
            losses = [self._model(batch, labels=batch, use_cache=False).loss for batch in blocks.split(BATCH)]
        return float(torch.stack(losses).mean())  # the batches are of one size


def measure(base: Path, adapted: Path, restored: Path) -> Iterator[tuple[str, Loss | Measured]]:
    """Losses by name as they come, then the whole."""
    scale, first, last, result = Scale(base), load(base), load(adapted), load(restored)
    matched = strength(first, last, result)
    found: dict[str, Loss] = {}
    for name, weights in (("base", first), ("adapted", last), ("restored", result)):
        found[name] = scale.loss(weights)
        yield name, found[name]
    uniform: dict[float, Loss] = {}
    for t in sorted({matched, *CURVE}, reverse=True):
        uniform[t] = scale.loss(interpolate(first, last, t=t))
        yield f"uniform {t:.2f}", uniform[t]
    yield "all", Measured(**found, uniform=uniform, strength=matched)


def load(folder: Path) -> Weights:
    """A checkpoint's weights under their names in the model, the tied head among them."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    return dict(model.state_dict())


def interpolate(base: Weights, adapted: Weights, *, t: float) -> Weights:
    """base + t (adapted - base) for every tensor, in float32, rounded once."""
    return {name: torch.lerp(base[name].float(), adapted[name].float(), t).to(base[name].dtype) for name in base}


def strength(base: Weights, adapted: Weights, restored: Weights) -> float:
    """The t at which uniform interpolation is as far from the base as `restored`: the ratio of the two distances."""
    return (distance(base, restored) / distance(base, adapted)) ** 0.5


def distance(one: Weights, other: Weights) -> float:
    """Sum of squared differences of all parameters, a tied head counted once."""
    names = [name for name in one if name != "lm_head.weight" or not torch.equal(one[name], one[EMBEDDING])]
    return sum(float((one[name].float() - other[name].float()).square().sum()) for name in names)


EMBEDDING = "model.embed_tokens.weight"
