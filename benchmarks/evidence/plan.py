"""Which pairs are made and compared, and where all of it is kept."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HOME = Path(__file__).resolve().parents[2] / ".bench" / "evidence"
BLOCK = 128
"""tokens of a text block: the item that is drawn by the bootstrap"""
BLOCKS = {"calibration": 72, "held_out": 80}
"""of the general text and of the domain's, each"""
ASKED = (0.80, 0.90, 0.95, 0.97)
"""shares of the domain gain that have to be kept"""


@dataclass(frozen=True, order=True)
class PairName:
    """One base and its continually pretrained child."""

    architecture: str
    domain: str
    seed: int

    @property
    def base(self) -> Path:
        return HOME / "models" / f"{self.architecture}-{self.seed}" / "base"

    @property
    def adapted(self) -> Path:
        return self.base.parent / self.domain

    @property
    def ablated(self) -> bool:
        """Whether the scores are compared one by one and in pairs."""
        return (self.architecture, self.domain) == ("llama", "math")

    @property
    def measured(self) -> Path:
        """What its models answered."""
        return HOME / "measured" / f"{self.architecture}-{self.domain}-{self.seed}.json"


def pairs(*, small: bool) -> Iterator[PairName]:
    """Three architectures with one domain, one architecture with three domains, three seeds of each; the cells in
    which most is compared come first. `small` is one seed of two pairs."""
    if small:
        yield from (PairName("llama", "math", 1), PairName("qwen3", "math", 1))
        return
    cells = [("llama", "math"), ("qwen3", "math"), ("gpt_neox", "math"), ("llama", "code"), ("llama", "japanese")]
    for architecture, domain in cells:
        for seed in (1, 2, 3):
            yield PairName(architecture, domain, seed)
