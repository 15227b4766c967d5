"""The check of a merged checkpoint, read back from the disk in one streaming pass."""

import hashlib
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import torch

from app.errors import Code, SpearError
from app.hub.headers import TensorInfo
from worker.checkpoints.checksum import Checksum
from worker.checkpoints.dtypes import torch_dtype
from worker.checkpoints.finite import is_finite
from worker.checkpoints.reader import Checkpoint, memory
from worker.methods import Workspace
from worker.pipeline.inputs import open_inputs
from worker.pipeline.merge import MergeResult
from worker.pipeline.operations import output_dtype, output_tag
from worker.pipeline.task import Reporter, Task

PIECE = 1 << 20
"""Bytes that are looked at together."""


@dataclass(frozen=True)
class VerifiedFile:
    """One file as it lies on the disk; `sha256` is the hex digest that the Hub will know it by."""

    name: str
    nbytes: int
    sha256: str


@dataclass(frozen=True)
class Verification:
    """What held: all tensors present, finite, of the right dtype and shape; `identical` of them proven byte by byte."""

    tensors: int
    identical: int
    files: tuple[VerifiedFile, ...]
    seconds: float


def verify(
    task: Task, decisions: Mapping[str, float] | None, result: MergeResult, reporter: Reporter
) -> Verification:
    """Re-reads the output and holds it against the plan; `files` has the weights' files with their SHA-256.

    A tensor reported as a copy (`copied_adapted`, `copied_base`, `carried_over`) must be its source's bytes; with
    `decisions`, every tensor that they leave out (or put at 1) must be the adapted model's. The files' running
    checksum must be the one that was computed while writing. Raises `SpearError(VERIFICATION_FAILED)` naming file and
    tensor.
    """
    began = time.monotonic()
    with ExitStack() as stack:
        output = stack.enter_context(_open(task.output))
        inputs = open_inputs(task, stack)
        check = _Check(task, output, inputs, result, decisions)
        check.names()
        reporter.stage("verifying", total=float(sum(file.nbytes for file in result.files)), unit="bytes")
        files = []
        done = 0
        for file in result.files:
            files.append(check.file(file.name, checksum=file.checksum))
            done += file.nbytes
            reporter.step(done=done, name=file.name)
    return Verification(
        tensors=len(output.tensors), identical=check.identical, files=tuple(files), seconds=time.monotonic() - began
    )


class _Check:
    def __init__(
        self, task: Task, output: Checkpoint, inputs: list[Checkpoint], result: MergeResult,
        decisions: Mapping[str, float] | None,
    ) -> None:
        self.task = task
        self.output = output
        self.inputs = inputs
        self.operations = result.operations
        self.decisions = decisions
        self.identical = 0
        self.work = Workspace()

    def names(self) -> None:
        """The output's tensors are those that were to be written, in the shapes and dtypes that they should have."""
        for name in self.operations.keys() ^ self.output.tensors.keys():
            fault = "missing from the output" if name in self.operations else "not part of the merge"
            _fail(f"{name} is {fault}", tensor=name)
        for name, found in self.output.tensors.items():
            model = next(source.tensors[name] for source in reversed(self.inputs) if name in source.tensors)
            if found.shape != model.shape:
                _fail(f"{name} is {list(found.shape)}, not {list(model.shape)}", tensor=name, file=found.file)
            wanted = output_tag(model, output_dtype(self.task))
            if found.dtype != wanted:
                _fail(f"{name} is stored as {found.dtype}, not {wanted}", tensor=name, file=found.file)

    def file(self, name: str, *, checksum: int) -> VerifiedFile:
        """One pass over a file, in the order of its bytes: digest, checksum, finiteness, comparison with the source."""
        path = self.task.output / name
        tensors = [tensor for tensor in self.output.tensors.values() if tensor.file == name]
        start = min(tensor.offset for tensor in tensors)
        with path.open("rb") as stream:
            head = stream.read(start)
        sha, running = hashlib.sha256(head), Checksum()
        running.update(head)
        for tensor in tensors:  # in the order in which they lie in the file
            source = self.source(tensor)
            for at in range(0, tensor.nbytes, PIECE):
                piece = self.piece(self.output, tensor, at, key="output")
                sha.update(memory(piece))
                running.update(memory(piece))
                self.look(tensor, piece, at, source=source)
            self.identical += source is not None
        if running.value != checksum:
            _fail(f"{name} on disk is not what was written", file=name)
        return VerifiedFile(name, path.stat().st_size, sha.hexdigest())

    def look(self, tensor: TensorInfo, piece: torch.Tensor, at: int, *, source: Checkpoint | None) -> None:
        if not is_finite(piece.view(torch_dtype(tensor))):
            _fail(f"{tensor.name} has NaN or infinite values", tensor=tensor.name, file=tensor.file)
        if source and not torch.equal(piece, self.piece(source, source.tensors[tensor.name], at, key="source")):
            _fail(f"{tensor.name} differs from its source", tensor=tensor.name, file=tensor.file)

    def piece(self, checkpoint: Checkpoint, tensor: TensorInfo, at: int, *, key: str) -> torch.Tensor:
        """Up to PIECE bytes of a tensor from byte `at`, as uint8."""
        stop = min(tensor.nbytes, at + PIECE)
        buffer = self.work.take(key, PIECE, torch.uint8)[: stop - at]
        checkpoint.read_bytes(tensor.name, start=at, stop=stop, out=memory(buffer))
        return buffer

    def source(self, tensor: TensorInfo) -> Checkpoint | None:
        """The input whose bytes this tensor must be, where it is a copy and the dtype was not changed."""
        operation = self.operations[tensor.name]
        unselected = self.decisions is not None and self.decisions.get(tensor.name, 1.0) == 1
        if operation == "copied_base" and not unselected:
            source = self.inputs[0]
        elif unselected or operation in {"copied_adapted", "carried_over"}:
            source = next(source for source in reversed(self.inputs) if tensor.name in source.tensors)
        else:
            return None
        return source if source.tensors[tensor.name].dtype == tensor.dtype else None


def _open(path: Path) -> Checkpoint:
    try:
        return Checkpoint.open(path)
    except SpearError as error:
        _fail(f"the output cannot be read back: {error.message}", **error.names)


def _fail(message: str, **names: str) -> NoReturn:
    raise SpearError(Code.VERIFICATION_FAILED, message, **names)
