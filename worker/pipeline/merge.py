"""The merge itself: every output tensor streamed from the inputs through its method into its place on disk."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import ceil

import torch

from app.errors import Code, SpearError
from worker.checkpoints.dtypes import TORCH_DTYPES, torch_dtype
from worker.checkpoints.finite import is_finite
from worker.checkpoints.reader import Checkpoint, memory
from worker.checkpoints.writer import ShardedWriter, WrittenFile
from worker.methods import Chunk, Method, Workspace, load_all
from worker.methods.base import CHUNK
from worker.pipeline.companions import copy_companions
from worker.pipeline.operations import Operation, digest, plan_operations
from worker.pipeline.task import Reporter, Task


@dataclass(frozen=True)
class MergeResult:
    """What was done. `operations`, per tensor: `copied_adapted`, `copied_base`, `carried_over` or the method's word."""

    operations: dict[str, str]
    files: tuple[WrittenFile, ...]
    companions: tuple[str, ...]
    seconds: float
    bytes_read: int
    bytes_written: int
    resumed: int

    @property
    def lerp_fallbacks(self) -> int:
        """Tensors for which SLERP was LERP: parallel to fp32, or of zero norm."""
        return sum(operation == "lerp" for operation in self.operations.values())


def merge(task: Task, decisions: Mapping[str, float] | None, reporter: Reporter) -> MergeResult:
    """Writes the merged checkpoint into `task.output`; a killed merge goes on where it was, to the same bytes.

    `decisions` (for `spear`) maps tensor names to t: 1 or absent is the adapted model's bytes, 0 the base's.
    Raises `SpearError` (NONFINITE_TENSOR, SHAPE_MISMATCH, DISK_FULL, ...) naming repo and tensor, leaving no file.
    """
    began = time.monotonic()
    with ExitStack() as stack:
        checkpoints = [stack.enter_context(Checkpoint.open(entry.path)) for entry in task.inputs]
        operations = plan_operations(task, checkpoints, decisions)
        writer = stack.enter_context(
            ShardedWriter(
                task.output, tensors=[(op.name, op.dtype, op.shape) for op in operations],
                max_shard_bytes=task.recipe.output.max_shard_bytes,
                journal=task.work_dir / "merge.journal", plan=digest(task, operations),
            )
        )
        resumed = len(writer.finished)
        _Run(task, checkpoints, writer, reporter).run({op.name: op for op in operations})
        files = writer.complete()
    companions = copy_companions(task.inputs[-1].path, task.output, dtype=task.recipe.output.dtype)
    return MergeResult(
        operations=dict(writer.finished), files=files, companions=tuple(companions),
        seconds=time.monotonic() - began, bytes_read=sum(checkpoint.bytes_read for checkpoint in checkpoints),
        bytes_written=sum(file.nbytes for file in files), resumed=resumed,
    )


class _Run:
    """One merge under way: the buffers, and the loop over tensors and chunks."""

    def __init__(
        self, task: Task, checkpoints: Sequence[Checkpoint], writer: ShardedWriter, reporter: Reporter
    ) -> None:
        self.task = task
        self.checkpoints = checkpoints
        self.writer = writer
        self.reporter = reporter
        self.work = Workspace()
        self.methods = load_all()

    def run(self, operations: Mapping[str, Operation]) -> None:
        sizes = {shard.file: shard.size for shard in self.writer.shards}
        self.reporter.stage("merging", total=float(sum(sizes.values())), unit="bytes")
        done = 0
        for tensor in (tensor for shard in self.writer.shards for tensor in shard.tensors):
            if tensor.name not in self.writer.finished:
                self.writer.finish(tensor.name, note=self.perform(operations[tensor.name]))
            done += tensor.nbytes
            self.reporter.step(done=done, name=tensor.name, operation=self.writer.finished[tensor.name])

    def perform(self, operation: Operation) -> str:
        """Writes one tensor, and says what was done with it."""
        if operation.source is not None:
            self._copy(operation, operation.source)
            return operation.note
        assert operation.spec is not None
        method = self.methods[operation.method](operation.spec, self.work)
        for turn in range(method.surveys):
            method.turn = turn
            for chunk in self._chunks(operation, method):
                method.survey(chunk)
            method.conclude()
        out_dtype = TORCH_DTYPES[operation.dtype]
        for chunk in self._chunks(operation, method):
            out = self.work.take("out", len(chunk), out_dtype)
            method.merge(chunk, out)
            if not is_finite(out, self.work):
                self._blame(operation)
            self.writer.write(operation.name, memory(out))
        return method.operation

    def _copy(self, operation: Operation, source: int) -> None:
        info, dtype = self.checkpoints[source].tensors[operation.name], TORCH_DTYPES[operation.dtype]
        for start, stop in _spans(info.elements, grain=1):
            stored = self._read(source, operation.name, start, stop)
            out = stored if stored.dtype == dtype else self.work.load("out", stored, dtype)
            if not is_finite(out, self.work):
                self._blame(operation)
            self.writer.write(operation.name, memory(out))

    def _chunks(self, operation: Operation, method: Method) -> Iterator[Chunk]:
        elements = torch.Size(operation.shape).numel()
        for start, stop in _spans(elements, grain=method.grain):
            models = [self._read(i, operation.name, start, stop) for i in range(len(self.checkpoints))]
            yield Chunk(start, stop, models[0], tuple(models[1:]))

    def _read(self, source: int, name: str, start: int, stop: int) -> torch.Tensor:
        checkpoint = self.checkpoints[source]
        buffer = self.work.take(f"input{source}", stop - start, torch_dtype(checkpoint.tensors[name]))
        return checkpoint.read_flat(name, start=start, stop=stop, out=buffer)

    def _blame(self, operation: Operation) -> None:
        """Finds out which input is not finite, and raises."""
        sources = range(len(self.checkpoints)) if operation.source is None else [operation.source]
        for source in sources:
            info = self.checkpoints[source].tensors[operation.name]
            for start, stop in _spans(info.elements, grain=1):
                if not is_finite(self._read(source, operation.name, start, stop), self.work):
                    repo = self.task.inputs[source].repo
                    raise SpearError(
                        Code.NONFINITE_TENSOR, f"{operation.name} of {repo} has NaN or infinite values",
                        tensor=operation.name, repo=repo, file=info.file,
                    )
        raise SpearError(
            Code.NONFINITE_TENSOR, f"{operation.name} does not fit into {operation.dtype}: some values overflow",
            tensor=operation.name, dtype=operation.dtype,
        )


def _spans(elements: int, *, grain: int) -> Iterator[tuple[int, int]]:
    """Consecutive spans of about CHUNK elements, multiples of `grain`; none for an empty tensor."""
    size = max(1, CHUNK // grain) * grain
    for number in range(ceil(elements / size)):
        yield number * size, min(elements, (number + 1) * size)
