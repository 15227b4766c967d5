"""Merges made in memory: one live model whose weights become, bit for bit, what a merge by a task would write.

The loops over chunks are the merge's own; only where their results go is another place.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, cast

import torch

from app.errors import Code, SpearError
from worker.checkpoints.behind import WriteBehind
from worker.checkpoints.dtypes import TORCH_DTYPES
from worker.methods import Workspace
from worker.pipeline.inputs import open_inputs
from worker.pipeline.merge import Tensors, prepared
from worker.pipeline.operations import Operation, plan_operations
from worker.pipeline.task import Task


class Live:
    """A loaded causal language model of the inputs' architecture, whose weights are written in place.

    Where transformers names a weight otherwise than the files do, the model is made anew from the merged tensors: as
    exact, and slower.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self._weights: dict[str, torch.Tensor] = {name: weight.data for name, weight in model.named_parameters()}
        self._weights |= {name: buffer for name, buffer in model.named_buffers() if name not in self._weights}
        self._work: Workspace | None = None  # kept from merge to merge: compiled loops are loaded once
        self._needed = {name for name, _ in model.named_parameters()}  # a tied head is the embedding, named once

    def become(self, task: Task, decisions: Mapping[str, float] | None = None) -> None:
        """The merge that `task` asks for. Raises `SpearError` as `worker.pipeline.merge.merge` does."""
        with ExitStack() as stack:
            checkpoints = open_inputs(task, stack)
            operations = plan_operations(task, checkpoints, decisions)
            places = self._places(operations)
            sink = _Sink(places or _fresh(operations))
            self._work = prepared(operations, torch.device("cpu"), work=self._work)
            run = Tensors(task, checkpoints, cast("WriteBehind", sink), self._work, None)
            for operation in operations:
                sink.at = 0
                run.perform(operation)
        if not places:
            self._replace(sink.places)

    def _places(self, operations: Sequence[Operation]) -> dict[str, torch.Tensor]:
        """Where each tensor goes in the live model; empty if they would not make up all of it."""
        here = {
            operation.name: self._weights[operation.name]
            for operation in operations
            if operation.name in self._weights and self._weights[operation.name].shape == torch.Size(operation.shape)
        }
        return here if here.keys() >= self._needed else {}

    def _replace(self, tensors: Mapping[str, torch.Tensor]) -> None:
        made, found = type(self.model).from_pretrained(
            None, config=self.model.config, state_dict=dict(tensors), dtype=self.model.dtype, output_loading_info=True
        )
        if lacking := sorted(found["missing_keys"]):
            raise SpearError(
                Code.MODEL_UNSUPPORTED, f"the merged weights lack {lacking[0]}", tensor=lacking[0]
            )
        with torch.no_grad():
            fresh = dict(made.named_parameters()) | dict(made.named_buffers())
            for name, weight in self._weights.items():
                weight.copy_(fresh[name])


def _fresh(operations: Sequence[Operation]) -> dict[str, torch.Tensor]:
    return {one.name: torch.empty(one.shape, dtype=TORCH_DTYPES[one.dtype]) for one in operations}


class _Sink:
    """Takes chunks as `WriteBehind` does, in order, each tensor from its first element on."""

    def __init__(self, places: Mapping[str, torch.Tensor]) -> None:
        self.at = 0
        self.places = places
        self._block = torch.empty(0, dtype=torch.uint8)

    def buffer(self, elements: int, dtype: torch.dtype) -> torch.Tensor:
        if self._block.numel() < elements * dtype.itemsize:
            self._block = torch.empty(elements * dtype.itemsize, dtype=torch.uint8)
        return self._block[: elements * dtype.itemsize].view(dtype)

    def write(self, name: str, chunk: torch.Tensor) -> None:
        if name in self.places:  # else it is nothing that the model has: a buffer that transformers computes itself
            self.places[name].view(-1)[self.at : self.at + len(chunk)].copy_(chunk)
        self.at += len(chunk)
