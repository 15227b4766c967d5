"""A merge killed at random tensors, again and again, ends in the bytes of an undisturbed one: for every input."""

import io
import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from app.recipes import parse_recipe
from tests.fixtures.adapters import LINEAR, make_adapter
from tests.fixtures.models import make_checkpoint
from worker.pipeline.merge import merge
from worker.pipeline.task import Input, Reporter, Task

SHARD = 1_000_000
SIZE: dict[str, Any] = {"hidden": 192, "layers": 4}
CASES: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "ties": (("one", "two"), {"method": {"name": "ties", "density": 0.4, "rescale": True}}),
    "della": (("one", "two"), {"method": {"name": "della", "density": 0.5, "seed": 2}}),
    "slerp": (("one",), {"method": {"name": "slerp", "t": 0.4}}),
    "adapter": (("one", "adapter"), {"method": {"name": "dare_ties", "density": 0.5, "seed": 5}}),
    "adapter alone": (("adapter",), {"method": {"name": "passthrough"}}),
    "tokens by text": (("one", "wide"), {"method": {"name": "linear"}, "tokenizer_source": "org/wide"}),
    "compat ties": (("one", "two"), {"method": {"name": "ties", "density": 0.4, "compat": "mergekit"}}),
    "compat dare": (("one", "two"), {"method": {"name": "dare_ties", "density": 0.4, "seed": 3, "compat": "mergekit"}}),
    "other dtype": (("one",), {"method": {"name": "wise_ft", "alpha": 0.3}, "output": {"dtype": "float32"}}),
}  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("kills")
    base = make_checkpoint(folder / "base", seed=1, tied=False, vocabulary=300, **SIZE)
    others = {name: make_checkpoint(folder / name, seed=i, like=base) for i, name in enumerate(("one", "two"), 2)}
    wide = make_checkpoint(folder / "wide", seed=4, tied=False, vocabulary=344, **SIZE)
    adapter = make_adapter(base, folder / "adapter", seed=5, use_dora=True, target_modules=LINEAR)
    return {"base": base, **others, "wide": wide, "adapter": adapter}


def make_task(work: Path, models: dict[str, Path], case: str) -> Task:
    names, rest = CASES[case]
    rest = rest | {"output": {"max_shard_bytes": SHARD, **rest.get("output", {})}}
    recipe = parse_recipe({
        "base": {"repo": "org/base"}, "experts": [{"repo": f"org/{name}"} for name in names],
        "target": {"repo": "org/merged"}, **rest,
    })  # fmt: skip
    inputs = tuple(
        Input(repo=f"org/{name}", revision="main", commit=str(i) * 40, path=models[name], digests={})
        for i, name in enumerate(("base", *names))
    )
    return Task(job_id="mrg_test", attempt=1, recipe=recipe, inputs=inputs, work_dir=work)


def files(task: Task) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in task.output.iterdir()}


class _Deadly(Reporter):
    """Kills the process when so many tensors have been reported."""

    def __init__(self, left: int) -> None:
        super().__init__(io.BytesIO())
        self._left = left

    def step(self, *, done: float, name: str, **data: Any) -> None:
        self._left -= 1
        if self._left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)


def killed(task: Task, *, after: int) -> bool:
    """Runs the merge in a child that dies after so many steps; whether it did."""
    child = os.fork()
    if child == 0:
        try:
            torch.set_num_threads(1)
            merge(task, None, _Deadly(after))
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("case", CASES)
def test_killed_again_and_again(tmp_path, models, case):
    undisturbed = make_task(tmp_path / "whole", models, case)
    whole = merge(undisturbed, None, Reporter(io.BytesIO()))
    assert len(whole.files) > 2
    chance = random.Random(case)
    task = make_task(tmp_path / "killed", models, case)
    for _ in range(3):
        assert killed(task, after=chance.randint(2, max(2, len(whole.operations) // 4)))
        assert (task.work_dir / "merge.journal").exists()
    result = merge(task, None, Reporter(io.BytesIO()))
    assert 3 <= result.resumed < len(whole.operations)
    assert result.operations == whole.operations
    assert files(task) == files(undisturbed)


@pytest.mark.parametrize("case", ["ties", "adapter"])
def test_what_a_kill_has_torn_is_made_again(tmp_path, models, case):
    """Bytes of a finished tensor that never reached the disk, and half a line of the journal."""
    undisturbed = make_task(tmp_path / "whole", models, case)
    merge(undisturbed, None, Reporter(io.BytesIO()))
    task = make_task(tmp_path / "killed", models, case)
    assert killed(task, after=9)
    journal = task.work_dir / "merge.journal"
    journal.write_bytes(journal.read_bytes()[:-7])
    partial = min(task.output.glob("*.partial"))
    torn = bytearray(partial.read_bytes())
    torn[30_000:30_200] = bytes(200)
    partial.write_bytes(torn)
    merge(task, None, Reporter(io.BytesIO()))
    assert files(task) == files(undisturbed)


def test_another_recipe_does_not_go_on_with_it(tmp_path, models):
    task = make_task(tmp_path / "work", models, "ties")
    assert killed(task, after=5)
    other = make_task(tmp_path / "work", models, "slerp")
    result = merge(other, None, Reporter(io.BytesIO()))
    assert result.resumed == 0
    fresh = make_task(tmp_path / "fresh", models, "slerp")
    merge(fresh, None, Reporter(io.BytesIO()))
    assert files(other) == files(fresh)
