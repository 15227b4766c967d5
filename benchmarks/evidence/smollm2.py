"""The real pair: SmolLM2-135M and what 50 hard steps on word problems made of it (`benchmarks.demo`).

Prose and code are told apart, and count alike. Neither was trained on here; the word problems have other numbers and
names than those that were. All of it is computed in bfloat16, the weights' own type.
"""

from pathlib import Path

import torch

from benchmarks.demo.places import ADAPTED, BASE
from benchmarks.evidence.corpora import blocks
from benchmarks.evidence.kits import DRAWN, Kit, Texts
from benchmarks.evidence.plan import PairName

COUNTS = {
    "calibration": {"prose": 12, "code": 12, "domain": 18},
    "held_out": {"prose": 32, "code": 32, "domain": 32},
}
"""blocks of 128 tokens"""
_KINDS = {"prose": "general", "code": "code", "domain": "math"}


class Smollm2Name(PairName):
    """The pair in the demo's folder."""

    @property
    def base(self) -> Path:
        return BASE

    @property
    def adapted(self) -> Path:
        return ADAPTED


SMOLLM2 = Smollm2Name("smollm2-135m", "math", 1)


def _texts(pair: PairName, part: str) -> Texts:
    from transformers import AutoTokenizer  # noqa: PLC0415

    encode = AutoTokenizer.from_pretrained(pair.base)
    return {
        role: blocks(_KINDS[role], part=part, count=count, seed=DRAWN[part], encode=encode)
        for role, count in COUNTS[part].items()
    }


def _prepare(_: PairName) -> None:
    from benchmarks.demo.convert import base_model  # noqa: PLC0415
    from benchmarks.demo.train import adapted_model  # noqa: PLC0415

    adapted_model(base_model())


KIT = Kit(prepare=_prepare, texts=_texts, dtype=torch.bfloat16)
