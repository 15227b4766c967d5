"""Scoring one stored tensor of a base and an adapted model."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from app.errors import Code, SpearError
from app.recipes.methods.spear import SpearParameters
from worker.pipeline.spectra import SPLIT, Side, Spectra
from worker.scores import Part, Row, SpectrumPair, blank_row, delta_shape, load_passes, make_row, parts, sums
from worker.scores.curve import Curve, curve
from worker.scores.ranking import group_of
from worker.scores.trust import single_is_enough, svdr_error
from worker.spectra import (
    SMALLEST,
    SMALLEST_OF_PAIRS,
    Precision,
    SpectrumKey,
    flops,
    group_shape,
    has_pairs,
    load_pairs,
)
from worker.spectra.room import Room

READING = 16.0  # flops that reading, converting and differencing one entry of both models is counted as
EXACT_AT_ONCE = 256  # short sides up to this cost so little that nothing is tried in single precision first
SPLIT_COST = 0.5  # of a full spectrum's flops, about
HELD = frozenset({"BF16", "F16"})  # dtypes of which both matrices stay in memory, instead of a second reading
BATCH_BYTES = 2**31  # of Gram matrices that a device other than the CPU is handed at once

Way = Literal["exact", "fast"]


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One stored tensor's outcome: its matrices' rows, unranked, new records for the cache, and counts of spectra."""

    rows: list[Row]
    records: list[dict[str, Any]]
    computed: int
    cached: int
    curves: dict[str, Curve]
    """the spectra that the rows rest on, by the rows' names, made small"""
    by_side: dict[str, int]
    """the counts again: base_computed, base_cached, adapted_computed, adapted_cached"""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The two models and all that scoring a tensor of them needs."""

    base: Side
    adapted: Side
    method: SpearParameters
    device: str
    known: dict[SpectrumKey, Tensor]
    room: Room = field(default_factory=Room)
    """of the process that scores: matrices come and go in the same memory"""

    def parts(self, name: str) -> list[Part]:
        return parts(name, shape=self.base.checkpoint.tensors[name].shape, config=self.base.checkpoint.config)

    def load_loops(self, names: Sequence[str]) -> None:
        """Loads the compiled loops that large bf16 matrices need, once for all processes that are forked after that."""
        infos = [self.base.checkpoint.tensors[name] for name in names]
        large = any(min(info.shape[-2:]) >= SMALLEST_OF_PAIRS for info in infos if info.dtype == "BF16")
        if large and self.device == "cpu" and has_pairs():
            load_pairs()
            load_passes()

    def groups(self, name: str) -> frozenset[str]:
        """The ranking groups of a stored tensor's matrices."""
        rows = [blank_row(part, itemsize=1) for part in self.parts(name)]
        return frozenset(group_of(row, ranking=self.method.ranking) for row in rows)

    def cost(self, name: str, *, way: Way) -> float:
        """Flops of scoring a stored tensor: reading it, and its spectra that are not known."""
        spectra, every = Spectra(device=self.device, known=self.known), self.parts(name)
        total = READING * sum(math.prod(part.shape) for part in every)
        for part in every:
            splits = way == "fast" and min(part.shape) >= SMALLEST
            tried = (SPLIT[0],) if splits else (first_precision(part), "exact")
            known = [
                any(spectra.peek(side, part, precision=grade) is not None for grade in tried)
                for side in (self.base, self.adapted)
            ]
            missing = known.count(False)
            total += missing * flops(part.shape) * (SPLIT_COST if splits else 1)
        return total

    def score(self, name: str, *, way: Way) -> Scored:
        """Raises `SpearError(nonfinite_tensor)` naming tensor and repo."""
        room, every = self._room_for(name), self.parts(name)
        spectra = Spectra(device=self.device, known=self.known, room=room)
        curves: dict[str, Curve] = {}
        rows: list[Row] = []
        for batch in batches(every, device=self.device):
            self._prepare(batch, spectra=spectra, way=way)
            rows += [self._row(part, spectra=spectra, way=way, curves=curves) for part in batch]
        return Scored(
            rows=rows, records=spectra.records, computed=spectra.computed, cached=spectra.cached, curves=curves,
            by_side={**spectra.counts(self.base, role="base"), **spectra.counts(self.adapted, role="adapted")},
        )  # fmt: skip

    def _room_for(self, name: str) -> Room | None:
        """The room, for matrices on the CPU of at most two bytes an entry that are a tensor of their own."""
        infos = [side.checkpoint.tensors[name] for side in (self.base, self.adapted)]
        small = all(info.dtype in HELD and len(info.shape) == 2 for info in infos)
        return self.room if small and self.device == "cpu" else None

    def _prepare(self, batch: list[Part], *, spectra: Spectra, way: Way) -> None:
        """Where a device gains by it, the first try of all spectra of a batch at once."""
        if self.device == "cpu" or estimated(batch[0], way=way):
            return
        tried, sides = first_precision(batch[0]), (self.base, self.adapted)
        spectra.prepare([(side, part) for side in sides for part in batch], precision=tried)

    def _row(self, part: Part, *, spectra: Spectra, way: Way, curves: dict[str, Curve]) -> Row:
        """Norms and the shape of the change first: both matrices are in memory together for these only.

        Where they take two bytes an entry they stay in the room: what comes then needs little enough beside them.
        """
        room = spectra.room
        pair = {side.role: side.matrix(part, device=self.device, room=room) for side in (self.base, self.adapted)}
        found_sums = sums(pair["base"], pair["adapted"])
        self._refuse_nonfinite(part.tensor, norms=(found_sums.base, found_sums.adapted))
        delta_norm, itemsize = math.sqrt(found_sums.delta), pair["adapted"].element_size()
        delta = None
        if delta_norm:
            known = {"delta_norm": delta_norm, "rounding": found_sums.rounding}
            delta = delta_shape(pair["base"], pair["adapted"], **known, room=room)
        spectra.held = {(role, part.name): each for role, each in pair.items()} if room else {}
        del pair
        fast = estimated(part, way=way)
        found = self._split(part, spectra) if fast else self._exact(part, spectra, changed=delta_norm > 0)
        curves[part.name] = curve(found.base, found.adapted)
        return make_row(
            blank_row(part, itemsize=itemsize), spectra=found, base_norm=math.sqrt(found_sums.base),
            delta_norm=delta_norm, delta=delta, estimator=self.method.snr, reference=self.method.snr_reference,
            variant=self.method.svdr,
        )  # fmt: skip

    def _exact(self, part: Part, spectra: Spectra, *, changed: bool) -> SpectrumPair:
        """In single precision where that is enough for this pair's scores, else in double.

        Whatever the cache holds beside: a job that runs again must come to the same numbers.
        """
        precision = first_precision(part)
        base, adapted = self._values(part, spectra, precision=precision)
        if precision == "single" and changed and not single_is_enough(base, adapted, shape=part.shape):
            precision = "exact"
            self.room.free("square")  # an fp64 Gram matrix takes twice as much
            base, adapted = self._values(part, spectra, precision=precision)
        error = svdr_error(base, adapted, precision=precision) if changed else 0.0
        return SpectrumPair(base=base, adapted=adapted, precision="exact", shape=part.shape, svdr_error=error)

    def _values(self, part: Part, spectra: Spectra, *, precision: Precision) -> list[Tensor]:
        return [spectra.values(side, part, precision=precision) for side in (self.base, self.adapted)]

    def _split(self, part: Part, spectra: Spectra) -> SpectrumPair:
        base, adapted = (spectra.split(side, part) for side in (self.base, self.adapted))
        thinner = SpectrumPair(
            base=base[1], adapted=adapted[1], precision="fast", shape=group_shape(part.shape, halves=True)
        )
        return SpectrumPair(
            base=base[0], adapted=adapted[0], precision="fast", shape=group_shape(part.shape), thinner=thinner
        )

    def _refuse_nonfinite(self, name: str, *, norms: tuple[float, float]) -> None:
        for norm, side in zip(norms, (self.base, self.adapted), strict=True):
            if not math.isfinite(norm):
                message = f"{name} of {side.source.repo} has NaN or infinite values"
                file = side.checkpoint.tensors[name].file
                raise SpearError(Code.NONFINITE_TENSOR, message, tensor=name, repo=side.source.repo, file=file)


def first_precision(part: Part) -> Precision:
    """What is tried first for a matrix of this size, where exact scores are asked for."""
    return "single" if min(part.shape) > EXACT_AT_ONCE else "exact"


def estimated(part: Part, *, way: Way) -> bool:
    """Whether a matrix of this size is estimated."""
    return way == "fast" and min(part.shape) >= SMALLEST


def batches(every: list[Part], *, device: str) -> list[list[Part]]:
    """Parts of one shape that follow each other: one at a time on the CPU, else as many as `BATCH_BYTES` allows.

    What is counted is the fp32 Gram matrices of both models.
    """
    found: list[list[Part]] = []
    for part in every:
        most = 1 if device == "cpu" else max(1, BATCH_BYTES // (8 * min(part.shape) ** 2))
        if found and found[-1][0].shape == part.shape and len(found[-1]) < most:
            found[-1].append(part)
        else:
            found.append([part])
    return found
