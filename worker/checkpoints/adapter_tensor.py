"""One tensor of a base with an adapter's change in it, computed while it is read.

It is computed in blocks of whole rows that lie where they lie whatever is asked for, so that the same element has the
same bits in every pass (scoring, merging, verifying), and memory holds one block. Arithmetic is fp64 from stored
values, with one rounding to the base's dtype: peft's own result to that rounding.

Sources: LoRA, arXiv 2106.09685, eq. 3; DoRA, arXiv 2402.09353, eq. 5; peft, `tuners/lora/layer.py` and `variants.py`.
"""

from math import prod

import torch

from app.hub.adapter_tensors import Change
from app.hub.headers import TensorInfo
from worker.checkpoints.dtypes import torch_dtype
from worker.checkpoints.reader import Checkpoint
from worker.methods.base import CHUNK, Workspace


class AdaptedTensor:
    """One changed tensor, as `rows` of `columns`: a vector has one column."""

    def __init__(
        self, info: TensorInfo, change: Change, *, scaling: float, base: Checkpoint, weights: Checkpoint,
        work: Workspace,
    ) -> None:
        self.info = info
        self._source = (weights, change.replaced) if change.replaced else (base, info)
        self._weights = weights
        self._change = change
        self._scaling = scaling
        self._work = work
        self._rows, self._columns = (info.shape[0], prod(info.shape[1:])) if info.shape else (1, 1)
        self._tall = max(1, CHUNK // max(1, self._columns))
        self._block = (-1, torch.empty(0))
        self._left, self._right = self._factors()
        self._magnitude = self._load(change.magnitude)
        self._shift = self._load(change.shift)
        turned = change.transposed and self._magnitude is not None
        self._column_scale = self._magnitude / self._column_norms() if turned and self._magnitude is not None else None

    def read(self, start: int, stop: int, *, out: torch.Tensor) -> torch.Tensor:
        """Elements `start` to `stop` of the flattened tensor into `out`, which is exactly so long."""
        size, at = self._tall * self._columns, start
        while at < stop:
            number, skip = divmod(at, size)
            piece = self._compute(number)[skip : skip + stop - at]
            out[at - start :][: len(piece)] = piece
            at += len(piece)
        return out

    def _compute(self, number: int) -> torch.Tensor:
        """Block `number`, flattened, in the stored dtype; the last one is kept."""
        if self._block[0] != number:
            start, stop = number * self._tall, min(self._rows, (number + 1) * self._tall)
            values = self._sum(start, stop)
            if self._column_scale is not None:
                values *= self._column_scale
            elif self._magnitude is not None:  # DoRA (arXiv 2402.09353, eq. 5): each row gets the length m
                values *= (self._magnitude[start:stop] / torch.linalg.vector_norm(values, dim=1))[:, None]
            self._block = (number, values.view(-1).to(torch_dtype(self.info)))
        return self._block[1]

    def _sum(self, start: int, stop: int) -> torch.Tensor:
        """Rows `start` to `stop` of W + s·(B·A), fp64 (stop - start, columns), in a buffer that is used again."""
        source, info = self._source
        count = (stop - start) * self._columns
        stored = self._work.take("stored", count, torch_dtype(info))
        source.read_flat(info.name, start=start * self._columns, stop=stop * self._columns, out=stored)
        if info is not self.info:  # what replaces a tensor is first rounded to its dtype, as on loading it into a model
            stored = stored.to(torch_dtype(self.info))
        values = self._work.load("values", stored, torch.float64).view(stop - start, self._columns)
        if self._right is not None:
            values.addmm_(self._rows_of_left(start, stop), self._right, alpha=self._scaling)
        if self._shift is not None:
            values.view(-1).add_(self._shift[start:stop], alpha=self._scaling)
        return values

    def _factors(self) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """What is held of the product: (rows, r) as stored, where its rows do not lie together, and (r, columns)."""
        down, up = self._change.down, self._change.up
        if down is None or up is None:
            return None, None
        if self._change.transposed:
            return self._weights.read(down.name).T, self._weights.read(up.name).double().T
        return None, self._weights.read(down.name).double()

    def _rows_of_left(self, start: int, stop: int) -> torch.Tensor:
        """Rows of the product's first factor, fp64 (stop - start, r)."""
        if self._left is not None:
            return self._left[start:stop].double()
        up = self._change.up
        assert up is not None
        rank = up.shape[1]
        rows = torch.empty((stop - start) * rank, dtype=torch_dtype(up))
        self._weights.read_flat(up.name, start=start * rank, stop=stop * rank, out=rows)
        return rows.view(stop - start, rank).double()

    def _column_norms(self) -> torch.Tensor:
        """Norms of the columns of W + s·(B·A): the length of each output's weights where rows are inputs; one pass."""
        squares = torch.zeros(self._columns, dtype=torch.float64)
        for start in range(0, self._rows, self._tall):
            squares += self._sum(start, min(self._rows, start + self._tall)).square().sum(dim=0)
        return squares.sqrt()

    def _load(self, part: TensorInfo | None) -> torch.Tensor | None:
        return self._weights.read(part.name).double() if part else None
