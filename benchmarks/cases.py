"""What is merged: the same merge in our language and in mergekit's, from the same files."""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.recipes import parse_recipe
from worker.pipeline.task import Input, Task


@dataclass(frozen=True)
class Case:
    """`experts` of the generated checkpoints with `parameters`; `inputs` is how many models are read."""

    name: str
    experts: tuple[str, ...]
    parameters: dict[str, Any] = field(default_factory=dict)
    weight: float | None = None

    @property
    def inputs(self) -> int:
        return len({"base", *self.experts})


CASES = {
    case.name: case
    for case in (
        Case("linear", ("base", "expert1"), weight=0.5),
        Case("slerp", ("expert1",), {"t": 0.5}),
        Case("task_arithmetic", ("expert1", "expert2"), weight=0.5),
        Case("ties", ("expert1", "expert2"), {"density": 0.5}, weight=0.5),
        Case("spear", ("expert1",)),
        Case("dare_ties", ("expert1", "expert2"), {"density": 0.5}, weight=0.5),
    )
}
SHARD_BYTES = 1_000_000_000


def our_task(case: Case, models: Path, *, work: Path) -> Path:
    """The task file of the worker's child; `work` is emptied."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    weight = {} if case.weight is None else {"weight": case.weight}
    recipe = parse_recipe({
        "base": {"repo": "bench/base"}, "experts": [{"repo": f"bench/{name}"} | weight for name in case.experts],
        "method": {"name": case.name, **case.parameters}, "target": {"repo": "bench/out"},
        "output": {"max_shard_bytes": SHARD_BYTES},
    })  # fmt: skip
    inputs = tuple(
        Input(repo=f"bench/{name}", revision="main", commit=str(i) * 40, path=folder, digests=_digests(folder))
        for i, name in enumerate(("base", *case.experts))
        for folder in (models / name,)
    )
    task = Task(job_id="mrg_bench", attempt=1, recipe=recipe, inputs=inputs, work_dir=work)
    file = work / "task.json"
    file.write_text(task.model_dump_json())
    return file


def mergekit_jobs(case: Case, models: Path, *, out: Path) -> Path:
    """The job list of `mergekit_runner`."""
    weight = {} if case.weight is None else {"parameters": {"weight": case.weight}}
    names = ("base", *case.experts) if case.name == "slerp" else case.experts
    recipe: dict[str, Any] = {
        "merge_method": case.name, "models": [{"model": str(models / name)} | weight for name in names],
        "parameters": case.parameters, "dtype": "bfloat16",
    }  # fmt: skip
    if case.name != "linear":
        recipe["base_model"] = str(models / "base")
    shutil.rmtree(out, ignore_errors=True)
    file = out.with_suffix(".json")
    file.write_text(json.dumps([[recipe, str(out)]]))
    return file


def _digests(folder: Path) -> dict[str, str]:
    """Any digest will do: nothing is cached here."""
    return {path.name: f"sha256:{number:064x}" for number, path in enumerate(sorted(folder.glob("*.safetensors")))}
