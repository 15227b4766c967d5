"""Models with other vocabularies, read as if they had the chosen one: rows of embedding and head matched by token."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from app.hub.adapters import ADAPTER_CONFIG
from app.hub.headers import DTYPE_BITS, TensorInfo
from app.hub.tokenrows import Lexicon, Origin, by_token, count_rows, match_rows, read_tokens
from app.hub.vocabulary import COMPARABLE, OPAQUE
from worker.checkpoints.dtypes import torch_dtype
from worker.checkpoints.open import open_model
from worker.checkpoints.reader import Checkpoint


def open_models(named: Sequence[tuple[str, Path]], *, vocabulary: int | None) -> list[Checkpoint]:
    """All models (repository and folder; the base first), each as if it had the vocabulary of model `vocabulary`.

    Without that, or where all tokens stand in the same rows, each as it is. Closing every one closes all files. Raises
    `SpearError` as `open_model`, `count_rows` and `read_tokens` do.
    """
    models: list[Checkpoint] = []
    try:
        for _, path in named:
            models.append(open_model(path, base=named[0][1]))
        if vocabulary is None:
            return models
        lexicons = [_lexicon(number, named, models[number]) for number in range(len(models))]
        return [
            AlignedCheckpoint(number, models=models, origins=match_rows(lexicons, source=vocabulary, number=number))
            for number in range(len(models))
        ]
    except BaseException:
        for model in models:
            model.close()
        raise


def tokenizer_folder(path: Path, *, base: Path) -> Path:
    """Where a model's tokenizer lies: an adapter without one of its own uses the base's."""
    own = any((path / name).is_file() for name in (*COMPARABLE, *OPAQUE))
    return path if own or not (path / ADAPTER_CONFIG).is_file() else base


def _lexicon(number: int, named: Sequence[tuple[str, Path]], model: Checkpoint) -> Lexicon:
    repo, path = named[number]
    folder = tokenizer_folder(path, base=named[0][1])
    shapes = {name: info.shape for name, info in model.tensors.items()}

    def read(name: str) -> bytes | None:
        return (folder / name).read_bytes() if (folder / name).is_file() else None

    return Lexicon(repo, read_tokens(read, repo=repo), count_rows(shapes, repo=repo))


@dataclass(frozen=True)
class _Run:
    """Output rows from `start` up to `stop` are consecutive rows of one model, from its row `first` on."""

    start: int
    stop: int
    model: int
    first: int


class AlignedCheckpoint(Checkpoint):
    """One model with the rows of its tensors by token in the chosen vocabulary's order.

    `origins` says for every row of the output which model's row it is. Another model's row is rounded to this model's
    dtype. All other tensors are the model's own. It closes its own model's files alone: the others have views too.
    """

    def __init__(self, number: int, *, models: Sequence[Checkpoint], origins: Sequence[Origin]) -> None:
        own = models[number]
        rows = len(origins)
        self.runs = _runs(origins)
        self._starts = [run.start for run in self.runs]
        self._models = models
        self._own = own
        identical = len(self.runs) == 1 and self.runs[0].model == number and self.runs[0].first == 0
        self.moved = frozenset(
            name
            for name, info in own.tensors.items()
            if by_token(name) and all(name in model.tensors for model in models)
            if not (identical and info.shape[0] == rows)
        )
        tensors = {name: _resized(info, rows) if name in self.moved else info for name, info in own.tensors.items()}
        super().__init__(own.path, config=own.config, tensors=tensors, handles={})

    def read_flat(self, name: str, *, start: int, stop: int, out: torch.Tensor) -> torch.Tensor:
        if name not in self.moved:
            part = self._own.read_flat(name, start=start, stop=stop, out=out)
        else:
            part = self._gather(self.info(name), start, stop, out=out[: stop - start])
        self.bytes_read = self._own.bytes_read
        return part

    def read_bytes(self, name: str, *, start: int, stop: int, out: memoryview) -> None:
        """As the base class does; of a tensor whose rows are matched, whole elements only."""
        if name not in self.moved:
            self._own.read_bytes(name, start=start, stop=stop, out=out)
            self.bytes_read = self._own.bytes_read
        elif stop > start:
            dtype = torch_dtype(self.info(name))
            whole = torch.frombuffer(out, dtype=dtype)
            self.read_flat(name, start=start // dtype.itemsize, stop=stop // dtype.itemsize, out=whole)

    def will_need(self, name: str) -> None:
        for model in {run.model for run in self.runs} if name in self.moved else ():
            self._models[model].will_need(name)
        self._own.will_need(name)

    def close(self) -> None:
        self._own.close()

    def _gather(self, info: TensorInfo, start: int, stop: int, *, out: torch.Tensor) -> torch.Tensor:
        """Elements `start` to `stop`, run by run; a run may begin and end within a row."""
        if out.dtype != torch_dtype(info):
            raise ValueError(f"{info.name} is stored as {info.dtype}, the buffer is {out.dtype}")
        width = info.elements // info.shape[0]
        at = start
        while at < stop:
            run = self.runs[bisect_right(self._starts, at // width) - 1]
            end = min(stop, run.stop * width)
            first = at + (run.first - run.start) * width
            self._read(run.model, info.name, first, first + end - at, out=out[at - start : end - start])
            at = end
        return out

    def _read(self, model: int, name: str, start: int, stop: int, *, out: torch.Tensor) -> None:
        source = self._models[model]
        dtype = torch_dtype(source.info(name))
        if dtype == out.dtype:
            source.read_flat(name, start=start, stop=stop, out=out)
        else:
            out.copy_(source.read_flat(name, start=start, stop=stop, out=torch.empty(len(out), dtype=dtype)))


def _runs(origins: Sequence[Origin]) -> list[_Run]:
    found: list[_Run] = []
    begin = 0
    for row in range(1, len(origins) + 1):
        model, first = origins[begin]
        if row == len(origins) or origins[row] != (model, first + row - begin):
            found.append(_Run(begin, row, model, first))
            begin = row
    return found


def _resized(info: TensorInfo, rows: int) -> TensorInfo:
    width = info.elements // max(1, info.shape[0])
    return replace(info, shape=(rows, *info.shape[1:]), nbytes=rows * width * DTYPE_BITS[info.dtype] // 8)
