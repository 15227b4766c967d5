"""How the pairs of a kind are made and read: the small ones, trained here, and the real one, made by the demo."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.evidence.corpora import blocks
from benchmarks.evidence.plan import BLOCKS, PairName
from benchmarks.evidence.train import prepare

DRAWN = {"calibration": 11, "held_out": 12}
"""seeds of the blocks"""
Texts = Mapping[str, torch.Tensor]
"""blocks x BLOCK tokens by role"""


@dataclass(frozen=True, kw_only=True)
class Kit:
    """What measuring needs of a pair, beside its name."""

    prepare: Callable[[PairName], None]
    """makes both models where they are not there"""
    texts: Callable[[PairName, str], Texts]
    """of `calibration` or `held_out`"""
    dtype: torch.dtype

    def load(self, folder: Path) -> Any:
        """A model in evaluation mode."""
        from transformers import AutoModelForCausalLM  # noqa: PLC0415

        return AutoModelForCausalLM.from_pretrained(folder, dtype=self.dtype).eval().requires_grad_(False)  # noqa: FBT003


def _texts(pair: PairName, part: str) -> Texts:
    kinds = {"general": "general", "domain": pair.domain}
    return {role: blocks(kind, part=part, count=BLOCKS[part], seed=DRAWN[part]) for role, kind in kinds.items()}


SMALL = Kit(prepare=prepare, texts=_texts, dtype=torch.float32)
