"""The stage `scoring`: singular spectra of base and adapted model, matrix by matrix, and the scores made of them."""

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from app.errors import Code, SpearError
from app.recipes.methods.spear import SpearParameters
from worker.checkpoints.reader import Checkpoint
from worker.pipeline.task import Input, Reporter, Task
from worker.scores import Part, Row, blank_row, delta_shape, make_row, parts, rank, squared_norms, wanted
from worker.spectra import SpectrumKey, flops, from_record, singular_values, to_record

FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
ROUNDED = 0.5  # share of the norm of Δ
READING = 16.0  # flops that reading, converting and differencing one entry of both models is counted as


@dataclass(kw_only=True)
class Scores:
    """The rows, ranked but not yet selected, and what they cost: spectra computed and taken from the cache, time."""

    rows: list[Row]
    computed: int = 0
    cached: int = 0
    seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class _Side:
    """One of the two models."""

    source: Input
    checkpoint: Checkpoint

    def key(self, part: Part, *, device: str) -> SpectrumKey:
        digest = self.source.digests[self.checkpoint.tensors[part.tensor].file]
        return SpectrumKey(digest=digest, tensor=part.name, device_class=device)


def score(task: Task, reporter: Reporter) -> Scores:
    """Score every tensor that the recipe's module list names, base against the first expert.

    Memory: one matrix pair as stored, a block in fp64, and a Gram matrix of the short side twice. Raises `SpearError`:
    `nothing_to_score`, `tensor_missing`, `shape_mismatch`, `nonfinite_tensor` (naming tensor and repo).
    """
    began = time.monotonic()
    method = parameters(task)
    with Checkpoint.open(task.base.path) as one, Checkpoint.open(task.experts[0].path) as two:
        base, adapted = _Side(source=task.base, checkpoint=one), _Side(source=task.experts[0], checkpoint=two)
        names = _scored_names(base, adapted, method=method)
        work = _Work(base=base, adapted=adapted, method=method, device=device_of(task), known=_load(task.spectra))
        outcome = _score_all(names, work=work, reporter=reporter)
    outcome.rows = rank(outcome.rows, weights=method.weights.model_dump(), ranking=method.ranking)
    outcome.warnings = _warnings(outcome.rows)
    outcome.seconds = time.monotonic() - began
    return outcome


def _score_all(names: list[str], *, work: "_Work", reporter: Reporter) -> Scores:
    outcome = Scores(rows=[])
    reporter.stage("scoring", total=math.fsum(map(work.cost, names)), unit="flop")
    done = 0.0
    for name in names:
        rows, fresh = work.score(name)
        for record in fresh:
            reporter.spectrum(record)
        outcome.rows.extend(rows)
        outcome.computed += len(fresh)
        outcome.cached += 2 * len(rows) - len(fresh)
        done += work.cost(name)
        reporter.step(done=done, name=name, cached=2 * len(rows) - len(fresh))
    return outcome


def parameters(task: Task) -> SpearParameters:
    """The recipe's method, which this stage is only asked for when it is `spear`."""
    method: Any = task.recipe.method
    if not isinstance(method, SpearParameters):
        raise TypeError(f"scoring needs the parameters of spear, not {type(method).__name__}")
    return method


def modules_of(method: SpearParameters) -> tuple[str, ...]:
    """The module list with the groups that are switched on beside it."""
    groups = (("embedding", method.embedding), ("head", method.head))
    return (*method.modules, *(name for name, on in groups if on))


def device_of(task: Task) -> str:
    """`cuda` or `cpu`, `auto` resolved."""
    if task.device != "auto":
        return task.device
    return "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True, kw_only=True)
class _Work:
    """Everything that scoring one tensor needs."""

    base: _Side
    adapted: _Side
    method: SpearParameters
    device: str
    known: dict[SpectrumKey, Tensor]

    def parts(self, name: str) -> list[Part]:
        return parts(name, shape=self.base.checkpoint.tensors[name].shape, config=self.base.checkpoint.config)

    def cost(self, name: str) -> float:
        """Flops of a stored tensor: its spectra that are not known, and reading it."""
        sides, every = (self.base, self.adapted), self.parts(name)
        missing = [part for part in every for side in sides if side.key(part, device=self.device) not in self.known]
        return math.fsum(flops(part.shape) for part in missing) + READING * sum(math.prod(p.shape) for p in every)

    def score(self, name: str) -> tuple[list[Row], list[dict[str, Any]]]:
        """The rows of a stored tensor's matrices, unranked, and the records of the spectra that were not known."""
        pair = [side.checkpoint.read(name).to(self.device) for side in (self.base, self.adapted)]
        rows, fresh = [], []
        for part in self.parts(name):
            row, new = self._score_part(part, pair=[part.cut(tensor) for tensor in pair])
            rows.append(row)
            fresh.extend(new)
        return rows, fresh

    def _score_part(self, part: Part, *, pair: list[Tensor]) -> tuple[Row, list[dict[str, Any]]]:
        base_square, adapted_square, delta_square = squared_norms(*pair)
        _refuse_nonfinite(part.tensor, norms=(base_square, adapted_square), sides=(self.base, self.adapted))
        spectra, fresh = self._spectra(part, pair=pair)
        delta_norm = math.sqrt(delta_square)
        row = make_row(
            blank_row(part, itemsize=pair[1].element_size()), base=spectra[0], adapted=spectra[1],
            base_norm=math.sqrt(base_square), delta_norm=delta_norm,
            delta=delta_shape(*pair, delta_norm=delta_norm) if delta_norm else None,
            estimator=self.method.snr, reference=self.method.snr_reference, variant=self.method.svdr,
        )  # fmt: skip
        return row, fresh

    def _spectra(self, part: Part, *, pair: list[Tensor]) -> tuple[list[Tensor], list[dict[str, Any]]]:
        spectra, fresh = [], []
        for side, matrix in zip((self.base, self.adapted), pair, strict=True):
            key = side.key(part, device=self.device)
            values = self.known.get(key)
            if values is None or values.numel() != min(matrix.shape):
                values = singular_values(matrix)
                fresh.append(to_record(key, values))
            spectra.append(values)
        return spectra, fresh


def _scored_names(base: _Side, adapted: _Side, *, method: SpearParameters) -> list[str]:
    """The tensors to score, in the order of their names; both models must have them in the same shape."""
    modules = modules_of(method)
    tensors = base.checkpoint.tensors
    floats = {name: len(info.shape) for name, info in sorted(tensors.items()) if info.dtype in FLOATS}
    names = [name for name, ndim in floats.items() if wanted(name, ndim=ndim, modules=modules)]
    if not names:
        raise SpearError(
            Code.NOTHING_TO_SCORE, f"no 2-D float tensor of {base.source.repo} matches {', '.join(modules)}",
            repo=base.source.repo, pointer="/method/modules",
        )  # fmt: skip
    for name in names:
        _same_shape(name, base=base, adapted=adapted)
    return names


def _warnings(rows: list[Row]) -> list[str]:
    """What a person should know before believing the scores."""
    endless = [row["name"] for row in rows if "snr" in row["infinite"]]
    moved = [row for row in rows if row["low_rank_delta"] is not None]
    low = [row for row in moved if row["low_rank_delta"]]
    rounded = [row for row in moved if (row["rounding_share"] or 0) > ROUNDED]
    said = []
    if endless:
        said.append(
            f"the SNR of {len(endless)} tensors is infinite, {endless[0]} among them: nothing in their spectrum counts "
            "as noise (at least half of it is zero), and they rank above all others by SNR and SWCI"
        )
    if 2 * len(low) > len(moved):
        said.append(
            f"the change of {len(low)} of {len(moved)} changed tensors has a low rank, as a merged LoRA has: spectra "
            "tell little about it, and filters of the spectrum (dg_hard) leave it as it is"
        )
    if 2 * len(rounded) > len(moved):
        said.append(
            f"in {len(rounded)} of {len(moved)} changed tensors over half of the change's norm may be the rounding "
            "of the stored weights"
        )
    return said


def _same_shape(name: str, *, base: _Side, adapted: _Side) -> None:
    repo = adapted.source.repo
    if name not in adapted.checkpoint.tensors:
        raise SpearError(Code.TENSOR_MISSING, f"{repo} has no tensor {name}", repo=repo, tensor=name)
    one, two = (tuple(side.checkpoint.tensors[name].shape) for side in (base, adapted))
    if one != two:
        message = f"{name} is {list(one)} in {base.source.repo} and {list(two)} in {repo}"
        raise SpearError(Code.SHAPE_MISMATCH, message, repo=repo, tensor=name)


def _refuse_nonfinite(name: str, *, norms: tuple[float, float], sides: tuple[_Side, _Side]) -> None:
    for norm, side in zip(norms, sides, strict=True):
        if not math.isfinite(norm):
            message = f"{name} of {side.source.repo} has NaN or infinite values"
            raise SpearError(Code.NONFINITE_TENSOR, message, tensor=name, repo=side.source.repo)


def _load(path: Path | None) -> dict[SpectrumKey, Tensor]:
    """The cached spectra by key. A damaged record is left out: it is computed again."""
    return dict(_records(path)) if path is not None and path.exists() else {}


def _records(path: Path) -> Iterator[tuple[SpectrumKey, Tensor]]:
    with path.open("rb") as lines:
        for line in lines:
            try:
                yield from_record(json.loads(line))
            except ValueError:
                continue
