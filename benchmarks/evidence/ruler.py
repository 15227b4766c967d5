"""What a small pair's texts cost the points between: answer sheets over token blocks, without a harness around."""

from collections.abc import Mapping
from typing import Any

import torch

from benchmarks.evidence.plan import BLOCK
from worker.evaluation.candidates import Between, Strengths
from worker.evaluation.likelihood import Span, likelihoods
from worker.evaluation.sheets import Sheet
from worker.evaluation.sides import Part, Sides
from worker.evaluation.slopes import slopes as slopes_of
from worker.evaluation.trials import Stretch, Trial

PARTS = {"general": Part("general"), "prose": Part("general"), "code": Part("general"), "domain": Part("domain")}
_CHECKED = 3  # of the calibration blocks every third is kept from the search


class Ruler:
    """Texts by their role (one of `PARTS`; blocks x BLOCK tokens), and a model between two."""

    def __init__(self, between: Between, texts: Mapping[str, torch.Tensor]) -> None:
        self.between = between
        self._spans = {
            role: [Span(tokens=tuple(row), scored=BLOCK - 1) for row in block.tolist()] for role, block in texts.items()
        }

    @property
    def names(self) -> tuple[str, ...]:
        return self.between.names

    @property
    def sloped(self) -> bool:
        return True

    def share(self, stretch: Stretch) -> float:
        return sum(len(self._of(role, stretch)) for role in self._spans) / sum(map(len, self._spans.values()))

    def measure(self, strengths: Strengths, stretch: Stretch, *, slopes: bool) -> Trial:
        self.between.move(strengths)
        if not slopes:
            return Trial(sheets=self.ask(self.between.model, stretch))
        sheets, found = {}, {}
        for role in self._spans:
            spans = self._of(role, stretch)
            nats, slope = slopes_of(self.between, spans)
            sheets[role] = sheet(role, nats.tolist())
            found[role] = slope / sum(span.scored for span in spans)
        return Trial(sheets=sheets, slopes=found)

    def ask(self, model: Any, stretch: Stretch | None = None) -> Mapping[str, Sheet]:
        """The sheets of any model; of all blocks, where no stretch is named."""
        found = {}
        for role in self._spans:
            answers = likelihoods(model, self._of(role, stretch), batch_tokens=4096)
            found[role] = sheet(role, [-one.total for one in answers])
        return found

    def sides(self, stretch: Stretch | None = None) -> Sides:
        """With the base's and the adapted model's sheets."""
        self.between.move(dict.fromkeys(self.names, 0.0))
        base = self.ask(self.between.model, stretch)
        self.between.move({})
        return Sides(base=base, adapted=self.ask(self.between.model, stretch), parts=self._parts)

    @property
    def _parts(self) -> dict[str, Part]:
        return {role: PARTS[role] for role in self._spans}

    def _of(self, role: str, stretch: Stretch | None) -> list[Span]:
        spans = self._spans[role]
        if stretch is None:
            return spans
        return [span for i, span in enumerate(spans) if (i % _CHECKED == _CHECKED - 1) == (stretch == "check")]


def sheet(role: str, nats: list[float]) -> Sheet:
    """Of blocks; one item each."""
    return Sheet(
        task=role, kind="loss", metric="nll", items=tuple(f"{i:016x}" for i in range(len(nats))), values=tuple(nats),
        weights=(float(BLOCK - 1),) * len(nats),
    )
