"""Spectra of a pair of models: taken from the cache where it has them, computed where it has not."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from worker.checkpoints.dtypes import torch_dtype
from worker.checkpoints.reader import Checkpoint
from worker.pipeline.memory import free_matrices_at_once
from worker.pipeline.task import Input
from worker.processor import arithmetic
from worker.scores import Part
from worker.spectra import Precision, SpectrumKey, from_record, many_values, split_count, split_values, to_record
from worker.spectra.room import Room

SPLIT = ("split", "split-halves")
"""Precisions of the two records that a split spectrum is kept in."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two models."""

    source: Input
    checkpoint: Checkpoint
    role: str
    """`base` or `adapted`: the name of its place in a `Room`"""

    def key(self, part: Part, *, precision: str, device: str) -> SpectrumKey:
        digest = self.source.digests[self.checkpoint.tensors[part.tensor].file]
        name = f"{part.name} [{part.region}]" if part.region else part.name  # the digest does not cover config.json
        return SpectrumKey(digest=digest, tensor=name, precision=precision, device_class=arithmetic(device))

    def matrix(self, part: Part, *, device: str, room: Room | None = None) -> Tensor:
        """The matrix as stored, read anew: it is in memory for as long as the caller holds it, or in the room."""
        stacked = len(self.checkpoint.tensors[part.tensor].shape) == 3
        if room is not None and not stacked:
            return part.cut(self._into(room, part.tensor))
        free_matrices_at_once()
        stored: Any = Experts(self.checkpoint, part.tensor) if stacked else self.checkpoint.read(part.tensor)
        matrix: Tensor = part.cut(stored)
        return matrix.to(device)

    def _into(self, room: Room, name: str) -> Tensor:
        info = self.checkpoint.info(name)
        flat = room.take(self.role, (info.elements,), torch_dtype(info))
        return self.checkpoint.read_flat(name, start=0, stop=info.elements, out=flat).reshape(info.shape)


@dataclass(frozen=True)
class Experts:
    """Stands in for a stored tensor of experts x n x m: an expert's matrix is read when it is asked for."""

    checkpoint: Checkpoint
    name: str

    def __getitem__(self, expert: int) -> Tensor:
        info = self.checkpoint.info(self.name)
        size = info.elements // info.shape[0]
        out = torch.empty(size, dtype=torch_dtype(info))
        self.checkpoint.read_flat(self.name, start=expert * size, stop=(expert + 1) * size, out=out)
        return out.reshape(info.shape[1:])


@dataclass(kw_only=True)
class Spectra:
    """The spectra of one matrix after the other; `records` and the counts grow as they are asked for.

    A matrix counts once: as computed if anything of it was, in whatever precisions, else as cached.
    """

    device: str
    known: dict[SpectrumKey, Tensor]
    room: Room | None = None
    held: dict[tuple[str, str], Tensor] = field(default_factory=dict)
    """matrices that are in memory, by role and part: not read again"""
    records: list[dict[str, Any]] = field(default_factory=list)
    fresh: set[tuple[int, str]] = field(default_factory=set)
    recalled: set[tuple[int, str]] = field(default_factory=set)
    made: dict[SpectrumKey, Tensor] = field(default_factory=dict)
    """computed here, so that nothing is computed twice for one tensor"""

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

    def values(self, side: Side, part: Part, *, precision: Precision) -> Tensor:
        """All singular values of the matrix, from the cache if it is known there in this precision."""
        self.prepare([(side, part)], precision=precision)
        key = side.key(part, precision=precision, device=self.device)
        return self.made[key] if key in self.made else self.known[key]

    def prepare(self, asked: Sequence[tuple[Side, Part]], *, precision: Precision) -> None:
        """Compute those of the spectra that are not known, of matrices of one shape, by one call of the eigensolver."""
        keys = {side.key(part, precision=precision, device=self.device): (side, part) for side, part in asked}
        missing = {
            key: (side, part) for key, (side, part) in keys.items()
            if key not in self.made and not self._recall([key], count=min(part.shape), of=(id(side), part.name))
        }  # fmt: skip
        if not missing:
            return
        matrices = [self._matrix(side, part) for side, part in missing.values()]
        found = many_values(matrices, precision=precision, room=self.room)
        for (key, (side, part)), values in zip(missing.items(), found, strict=True):
            self._keep(key, values, of=(id(side), part.name))

    def split(self, side: Side, part: Part) -> list[Tensor]:
        """The values of the matrix's column groups, and of their halves."""
        keys = [side.key(part, precision=precision, device=self.device) for precision in SPLIT]
        known = self._recall(keys, count=split_count(part.shape), of=(id(side), part.name))
        if known:
            return known
        fresh = split_values(self._matrix(side, part), room=self.room)
        for key, values in zip(keys, (fresh.values, fresh.halves), strict=True):
            self._keep(key, values, of=(id(side), part.name))
        return [self.made[key] for key in keys]

    def peek(self, side: Side, part: Part, *, precision: str) -> Tensor | None:
        """What the cache holds, without counting it as used."""
        return self.known.get(side.key(part, precision=precision, device=self.device))

    def _matrix(self, side: Side, part: Part) -> Tensor:
        held = self.held.get((side.role, part.name))
        return side.matrix(part, device=self.device) if held is None else held

    def _recall(self, keys: list[SpectrumKey], *, count: int, of: tuple[int, str]) -> list[Tensor] | None:
        values = [self.known.get(key) for key in keys]
        found = [each for each in values if each is not None and each.numel() == count]
        if len(found) < len(keys):
            return None
        self.recalled.add(of)
        return found

    def _keep(self, key: SpectrumKey, values: Tensor, *, of: tuple[int, str]) -> None:
        self.made[key] = values
        self.records.append(to_record(key, values))
        self.fresh.add(of)


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
