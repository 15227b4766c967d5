"""Spectra of a pair of models: taken from the cache where it has them, computed where it has not."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from worker.checkpoints.reader import Checkpoint
from worker.pipeline.task import Input
from worker.scores import Part
from worker.spectra import Precision, SpectrumKey, from_record, singular_values, split_count, split_values, to_record

SPLIT = ("split", "split-halves")
"""Precisions of the two records that a split spectrum is kept in."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two models."""

    source: Input
    checkpoint: Checkpoint

    def key(self, part: Part, *, precision: str, device: str) -> SpectrumKey:
        digest = self.source.digests[self.checkpoint.tensors[part.tensor].file]
        name = f"{part.name} [{part.region}]" if part.region else part.name  # the digest does not cover config.json
        return SpectrumKey(digest=digest, tensor=name, precision=precision, device_class=device)


@dataclass(kw_only=True)
class Spectra:
    """The spectra of one matrix after the other; `records` and the counts grow as they are asked for.

    A matrix counts once: as computed if anything of it was, in whatever precisions, else as cached.
    """

    device: str
    known: dict[SpectrumKey, Tensor]
    records: list[dict[str, Any]] = field(default_factory=list)
    fresh: set[tuple[int, str]] = field(default_factory=set)
    recalled: set[tuple[int, str]] = field(default_factory=set)

    @property
    def computed(self) -> int:
        return len(self.fresh)

    @property
    def cached(self) -> int:
        return len(self.recalled - self.fresh)

    def counts(self, side: Side, *, role: str) -> dict[str, int]:
        """The counts of one of the two models: `<role>_computed` and `<role>_cached`."""
        fresh = sum(of == id(side) for of, _ in self.fresh)
        kept = sum(of == id(side) for of, _ in self.recalled - self.fresh)
        return {f"{role}_computed": fresh, f"{role}_cached": kept}

    def values(self, side: Side, part: Part, matrix: Tensor, *, precision: Precision) -> Tensor:
        """All singular values of the matrix, from the cache if it is known there in this precision."""
        key = side.key(part, precision=precision, device=self.device)
        values = self._recall([key], count=min(part.shape), of=(id(side), part.name))
        if values is None:
            values = [self._keep(key, singular_values(matrix, precision=precision))]
            self.fresh.add((id(side), part.name))
        return values[0]

    def split(self, side: Side, part: Part, matrix: Tensor) -> list[Tensor]:
        """The values of the matrix's column groups, and of their halves."""
        keys = [side.key(part, precision=precision, device=self.device) for precision in SPLIT]
        values = self._recall(keys, count=split_count(part.shape), of=(id(side), part.name))
        if values is None:
            fresh = split_values(matrix)
            values = [self._keep(key, each) for key, each in zip(keys, (fresh.values, fresh.halves), strict=True)]
            self.fresh.add((id(side), part.name))
        return values

    def best(self, side: Side, part: Part, *, otherwise: Precision) -> Precision:
        """`exact` where the cache knows the matrix so, else the precision to try first."""
        known = self.peek(side, part, precision="exact")
        return "exact" if known is not None and known.numel() == min(part.shape) else otherwise

    def peek(self, side: Side, part: Part, *, precision: str) -> Tensor | None:
        """What the cache holds, without counting it as used."""
        return self.known.get(side.key(part, precision=precision, device=self.device))

    def _recall(self, keys: list[SpectrumKey], *, count: int, of: tuple[int, str]) -> list[Tensor] | None:
        values = [self.known.get(key) for key in keys]
        found = [each for each in values if each is not None and each.numel() == count]
        if len(found) < len(keys):
            return None
        self.recalled.add(of)
        return found

    def _keep(self, key: SpectrumKey, values: Tensor) -> Tensor:
        self.records.append(to_record(key, values))
        return values


def load(path: Path | None) -> dict[SpectrumKey, Tensor]:
    """The cached spectra by key. A damaged record is left out: it is computed again."""
    return dict(_records(path)) if path is not None and path.exists() else {}


def _records(path: Path) -> Iterator[tuple[SpectrumKey, Tensor]]:
    with path.open("rb") as lines:
        for line in lines:
            try:
                yield from_record(json.loads(line))
            except ValueError:
                continue
