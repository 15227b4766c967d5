"""The merge itself: every output tensor streamed from the inputs through its method into its place on disk."""

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import ceil
from typing import NoReturn

import torch

from app.errors import Code, SpearError
from app.hub.headers import TensorInfo
from worker.checkpoints.behind import WriteBehind
from worker.checkpoints.dtypes import TORCH_DTYPES, torch_dtype
from worker.checkpoints.finite import is_finite
from worker.checkpoints.layout import size_of
from worker.checkpoints.reader import Checkpoint
from worker.checkpoints.writer import ShardedWriter, WrittenFile
from worker.methods import Chunk, Method, NotFiniteError, Spec, UndefinedError, Workspace, load_all
from worker.methods.base import CHUNK
from worker.pipeline.companions import copy_companions
from worker.pipeline.inputs import open_inputs
from worker.pipeline.lanes import device_for
from worker.pipeline.operations import Operation, digest, output_dtype, plan_operations
from worker.pipeline.staging import DEPTH, Part, Staging, chunk_of
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
        return sum(operation.startswith("lerp") for operation in self.operations.values())


def merge(
    task: Task, decisions: Mapping[str, float] | None, reporter: Reporter, *, staged: bool | None = None
) -> MergeResult:
    """Writes the merged checkpoint into `task.output`; a killed merge goes on where it was, to the same bytes.

    `decisions` (for `spear`) maps tensor names to t: 1 or absent is the adapted model's bytes, 0 the base's.
    `device_for` names the device; `staged` says whether chunks go through its lanes, by default where it is no CPU.
    Raises `SpearError` (NONFINITE_TENSOR, SHAPE_MISMATCH, DISK_FULL, ...) naming repo and tensor, leaving no file.
    """
    began = time.monotonic()
    device = device_for(task)
    staged = device.type != "cpu" if staged is None else staged
    with ExitStack() as stack:
        checkpoints = open_inputs(task, stack)
        operations = plan_operations(task, checkpoints, decisions)
        tensors = [(op.name, op.dtype, op.shape) for op in operations]
        work = prepared(operations, device)
        # before the writer takes its room on the disk: where there is none, it is this stage that fails
        reporter.stage("merging", total=float(sum(map(size_of, tensors))), unit="bytes")
        writer = stack.enter_context(
            ShardedWriter(
                task.output, tensors=tensors,
                max_shard_bytes=task.merging.output.max_shard_bytes,
                journal=task.work_dir / "merge.journal", plan=digest(task, operations) + device.type.replace("cpu", ""),
            )
        )
        resumed = len(writer.finished)
        with (
            WriteBehind(writer, held=DEPTH if staged else 1, pin=device.type != "cpu") as behind,
            Staging(device, behind) if staged else nullcontext() as staging,
        ):
            run = Tensors(task, checkpoints, behind, work, staging)
            _write_all(run, writer, {op.name: op for op in operations}, reporter)
        files = writer.complete()
        source = task.merging.tokenizer_input
        companions = copy_companions(
            task.inputs[-1].path, task.output, dtype=output_dtype(task), base=task.base.path,
            vocabulary=None if source is None else task.inputs[source].path,
        )
    return MergeResult(
        operations=dict(writer.finished), files=files, companions=tuple(companions),
        seconds=time.monotonic() - began, bytes_read=sum(checkpoint.bytes_read for checkpoint in checkpoints),
        bytes_written=sum(file.nbytes for file in files), resumed=resumed,
    )


def prepared(
    operations: Iterable[Operation], device: torch.device, *, work: Workspace | None = None
) -> Workspace:
    """The buffers (those of an earlier merge, where given), and what the methods load once for all tensors."""
    work = work or Workspace(keep=4 * chunk_of(device), device=device)
    work.memory.clear()  # what methods remember is one merge's
    methods = load_all()
    asked: dict[str, list[Spec]] = {}
    for operation in operations:
        if operation.spec:
            asked.setdefault(operation.method, []).append(operation.spec)
    for name, specs in asked.items():
        methods[name].prepare(work, specs)
    return work


def _write_all(run: "Tensors", writer: ShardedWriter, operations: Mapping[str, Operation], reporter: Reporter) -> None:
    tensors = [tensor for shard in writer.shards for tensor in shard.tensors]
    resumed = dict(writer.finished)
    left = [tensor for tensor in tensors if tensor.name not in resumed]
    done = sum(tensor.nbytes for tensor in tensors) - sum(tensor.nbytes for tensor in left)
    if resumed:
        reporter.step(done=done, name=f"{len(resumed)} tensors finished before", resumed=len(resumed))
    for tensor, following in pairwise([*left, None]):
        assert tensor
        if following:
            run.will_need(operations[following.name])
        note = run.perform(operations[tensor.name])
        done += tensor.nbytes
        say = partial(reporter.step, done=done, name=tensor.name, operation=note)
        run.behind.finish(tensor.name, note=note, then=say)


class Tensors:
    """One merge under way: the buffers, and the loops over chunks."""

    def __init__(
        self, task: Task, checkpoints: Sequence[Checkpoint], behind: WriteBehind, work: Workspace,
        staging: Staging | None,
    ) -> None:
        self.task = task
        self.staging = staging
        self.checkpoints = checkpoints
        self.behind = behind
        self.work = work
        self.host = Workspace() if staging else work
        self.chunk = chunk_of(work.device)
        self.methods = load_all()

    def perform(self, operation: Operation) -> str:
        """Computes one tensor and hands it on, and says what was done with it."""
        if operation.source is not None:
            self._copy(operation, operation.source)
            return operation.note
        assert operation.spec is not None
        try:
            with nullcontext() if self.work.device.type == "cpu" else self.work.device:  # where a method makes tensors
                method = self.methods[operation.method].made_for(operation.spec, self.work)
                self._merge(operation, method)
        except NotFiniteError:
            self._blame(operation)
        except UndefinedError as error:
            file = self.checkpoints[0].tensors[operation.name].file
            raise SpearError(
                Code(getattr(error, "code", Code.MERGE_UNDEFINED)), str(error), tensor=operation.name, file=file
            ) from error
        return method.operation

    def will_need(self, operation: Operation) -> None:
        """The kernel shall fetch this tensor's inputs while others are computed."""
        for source in self._sources(operation):
            self.checkpoints[source].will_need(operation.name)

    def _merge(self, operation: Operation, method: Method) -> None:
        if method.probes:
            method.probe(self._sample(operation, method, method.probes))
        while method.turn < method.surveys:
            self._pass(operation, method, method.survey)
            method.conclude()
            method.turn += 1
        self._pass(operation, method, partial(self._write, operation, method))
        if self.staging:
            self.staging.flush()

    def _pass(self, operation: Operation, method: Method, look: Callable[[Chunk], None]) -> None:
        with closing(self._chunks(operation, method)) as chunks:  # a thread may be reading for them
            for chunk in chunks:
                look(chunk)

    def _write(self, operation: Operation, method: Method, chunk: Chunk) -> None:
        dtype = TORCH_DTYPES[operation.dtype]
        if self.staging:
            merged = self.staging.room(len(chunk), dtype)
            method.merge(chunk, merged)
            self.staging.store(operation.name, merged)
            return
        out = self.behind.buffer(len(chunk), dtype)
        method.merge(chunk, out)
        if not is_finite(out):
            raise NotFiniteError(operation.name)
        self.behind.write(operation.name, out)

    def _copy(self, operation: Operation, source: int) -> None:
        dtype = TORCH_DTYPES[operation.dtype]
        info = self.checkpoints[source].tensors[operation.name]
        for start, stop in _spans(info.elements, grain=1, size=CHUNK):
            out = self.behind.buffer(stop - start, dtype)
            if torch_dtype(info) == dtype:
                self.checkpoints[source].read_flat(info.name, start=start, stop=stop, out=out)
            else:
                out.copy_(self._read(source, info, start, stop))
            if not is_finite(out):
                self._blame(operation)
            self.behind.write(operation.name, out)

    def _sample(self, operation: Operation, method: Method, spans: Sequence[tuple[int, int]]) -> Chunk:
        """The spans one behind the other, as one chunk: a hundred chunks of a few elements would take too long."""
        size = sum(stop - start for start, stop in spans)
        parts = []
        for source in ((0,) if method.uses_base else ()) + tuple(operation.experts):
            checkpoint = self.checkpoints[source]
            buffer = self.host.take(f"input{source}", size, torch_dtype(checkpoint.tensors[operation.name]))
            parts.append(checkpoint.read_spans(operation.name, spans, out=buffer).to(self.work.device))
        base = parts.pop(0) if method.uses_base else torch.empty(0)
        return Chunk(0, size, base, tuple(parts))

    def _chunks(self, operation: Operation, method: Method) -> Generator[Chunk]:
        infos = [checkpoint.tensors[operation.name] for checkpoint in self.checkpoints]
        spans = _spans(infos[0].elements, grain=method.grain, size=self.chunk)
        if self.staging:
            under = self._part(0, infos[0]) if method.uses_base else None
            parts = [under, *(self._part(source, infos[source]) for source in operation.experts)]
            yield from self.staging.chunks(spans, parts)
            return
        nothing = torch.empty(0)
        for start, stop in spans:
            base = self._read(0, infos[0], start, stop) if method.uses_base else nothing
            experts = [self._read(source, infos[source], start, stop) for source in operation.experts]
            yield Chunk(start, stop, base, tuple(experts))

    def _part(self, source: int, info: TensorInfo) -> Part:
        read = self.checkpoints[source].read_flat
        return Part(torch_dtype(info), lambda start, stop, out: read(info.name, start=start, stop=stop, out=out))

    def _read(self, source: int, info: TensorInfo, start: int, stop: int) -> torch.Tensor:
        buffer = self.host.take(f"input{source}", stop - start, torch_dtype(info))
        return self.checkpoints[source].read_flat(info.name, start=start, stop=stop, out=buffer)

    def _sources(self, operation: Operation) -> Sequence[int]:
        return (0, *operation.experts) if operation.source is None else (operation.source,)

    def _blame(self, operation: Operation) -> NoReturn:
        """Finds out which input is not finite, and raises."""
        for source in self._sources(operation):
            info = self.checkpoints[source].tensors[operation.name]
            for start, stop in _spans(info.elements, grain=1, size=CHUNK):
                if not is_finite(self._read(source, info, start, stop)):
                    repo = self.task.inputs[source].repo
                    raise SpearError(
                        Code.NONFINITE_TENSOR, f"{operation.name} of {repo} has NaN or infinite values",
                        tensor=operation.name, repo=repo, file=info.file,
                    )
        raise SpearError(
            Code.NONFINITE_TENSOR, f"{operation.name} does not fit into {operation.dtype}: some values overflow",
            tensor=operation.name, dtype=operation.dtype,
        )


def _spans(elements: int, *, grain: int, size: int) -> Iterator[tuple[int, int]]:
    """Consecutive spans of about `size` elements, multiples of `grain`; none for an empty tensor."""
    size = max(1, size // grain) * grain
    for number in range(ceil(elements / size)):
        yield number * size, min(elements, (number + 1) * size)
