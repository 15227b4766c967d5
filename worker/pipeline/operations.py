"""What is to be done with every tensor of the output, decided from headers before any weight is read."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from app.errors import Code, SpearError
from app.hub.headers import TensorInfo
from app.hub.heads import idle_heads
from app.recipes.depth import layer_count
from worker.checkpoints.dtypes import MERGEABLE
from worker.checkpoints.reader import Checkpoint
from worker.methods import Spec, load_all
from worker.pipeline.parameters import Parameters
from worker.pipeline.task import Input, Task

OUTPUT_TAGS = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
FORMAT = 5
"""raised whenever the same plan would give other bytes than before: journals of older plans are then void"""


@dataclass(frozen=True)
class Operation:
    """One output tensor: either a copy out of `source` (an input's number, 0 is the base) or a merge by `method` of the
    base and the inputs `experts`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    source: int | None = None
    note: str = ""
    method: str = ""
    spec: Spec | None = None
    experts: tuple[int, ...] = ()


def plan_operations(
    task: Task, checkpoints: Sequence[Checkpoint], decisions: Mapping[str, float] | None
) -> list[Operation]:
    """One operation per tensor of the output: the last expert's tensors, and what only the others have.

    A tied head that is stored beside its embedding is left out. Raises `SpearError` (SHAPE_MISMATCH,
    DTYPE_MISMATCH, INVALID_RECIPE) naming the tensor.
    """
    names = _union(checkpoints)
    parameters = Parameters(task, names, layers=layer_count(checkpoints[0].config))
    return _numbered([_operation(task, checkpoints, name, decisions, parameters) for name in names])


def _numbered(operations: list[Operation]) -> list[Operation]:
    """Tells each tensor how many draws mergekit would have made before it (in compat mode; else none)."""
    methods = load_all()
    drawn, known = 0, {}
    for op in sorted(operations, key=lambda op: op.name):
        known[op.name] = drawn
        drawn += methods[op.method].draws(op.spec) if op.spec else 0
    return [replace(op, spec=op.spec and replace(op.spec, drawn=known[op.name])) for op in operations]


def digest(task: Task, operations: Sequence[Operation]) -> str:
    """SHA-256 of everything that the output's bytes depend on."""
    inputs = [(entry.repo, entry.commit, sorted(entry.digests.items())) for entry in task.inputs]
    steps = [(op.name, op.dtype, op.shape, op.source, op.experts, op.method, _plain(op.spec)) for op in operations]
    rest = (task.merging.output.max_shard_bytes, task.merging.tokenizer_input)
    return sha256(json.dumps([FORMAT, inputs, steps, rest], sort_keys=True, default=str).encode()).hexdigest()


def _operation(
    task: Task, checkpoints: Sequence[Checkpoint], name: str, decisions: Mapping[str, float] | None,
    parameters: Parameters,
) -> Operation:
    having = [number for number, checkpoint in enumerate(checkpoints) if name in checkpoint.tensors]
    model = checkpoints[having[-1]].tensors[name]
    dtype = output_tag(model, output_dtype(task))
    carried = Operation(name, dtype, model.shape, source=having[-1], note="carried_over")
    if len(having) < len(checkpoints):
        return carried
    for number in having:
        _check_alike(checkpoints[number].tensors[name], model, task.inputs[number])
    if model.dtype not in MERGEABLE:
        return carried
    if decisions is not None:
        return _restored(name, dtype, model.shape, t=decisions.get(name, 1.0), adapted=len(checkpoints) - 1)
    spec = parameters.of(name, model.shape)
    method = task.method.method_name()
    return Operation(name, dtype, model.shape, method=method, spec=spec, experts=parameters.sources)


def _restored(name: str, dtype: str, shape: tuple[int, ...], *, t: float, adapted: int) -> Operation:
    if t == 1:
        return Operation(name, dtype, shape, source=adapted, note="copied_adapted")
    if t == 0:
        return Operation(name, dtype, shape, source=0, note="copied_base")
    return Operation(name, dtype, shape, method="slerp", spec=Spec(name, shape, {"t": t}, ({},)), experts=(adapted,))


def output_dtype(task: Task) -> str | None:
    """The dtype that the recipe asks for, if it does."""
    return task.merging.output.dtype or getattr(task.method, "dtype", None)


def output_tag(model: TensorInfo, wanted: str | None) -> str:
    """The dtype that a tensor is written in: the recipe's, else that of the model which it comes from."""
    return OUTPUT_TAGS[wanted] if wanted and model.dtype in MERGEABLE else model.dtype


def _check_alike(found: TensorInfo, model: TensorInfo, entry: Input) -> None:
    if found.shape != model.shape:
        raise SpearError(
            Code.SHAPE_MISMATCH, f"{found.name} is {list(found.shape)} in {entry.repo}, elsewhere {list(model.shape)}",
            repo=entry.repo, file=found.file, tensor=found.name,
        )
    if found.dtype != model.dtype and not {found.dtype, model.dtype} <= set(MERGEABLE):
        raise SpearError(
            Code.DTYPE_MISMATCH, f"{found.name} is {found.dtype} in {entry.repo}, elsewhere {model.dtype}",
            repo=entry.repo, file=found.file, tensor=found.name,
        )


def _union(checkpoints: Sequence[Checkpoint]) -> list[str]:
    """Every name that a model has, those of the last model first."""
    found: dict[str, None] = {}
    for checkpoint in reversed(checkpoints):
        idle = idle_heads(checkpoint.config, {name: info.shape for name, info in checkpoint.tensors.items()})
        found |= dict.fromkeys(name for name in checkpoint.tensors if name not in idle)
    return list(found)


def _plain(spec: Spec | None) -> Any:
    if spec is None:
        return None
    experts = [dict(expert) for expert in spec.experts]
    return [spec.name, spec.shape, dict(spec.parameters), experts, spec.keys, spec.drawn, spec.depth]
