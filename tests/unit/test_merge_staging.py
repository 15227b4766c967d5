"""Chunks through a device's lanes: on the CPU the same bytes as without, on a GPU those of the CPU to one rounding."""

import io
from pathlib import Path

import pytest
import torch

from app.errors import Code, SpearError
from app.recipes import parse_recipe
from tests.fixtures.models import make_checkpoint, rewrite_tensor
from worker.checkpoints.reader import Checkpoint
from worker.methods import Workspace
from worker.methods.magnitude import Selection, Trim
from worker.pipeline.lanes import device_for
from worker.pipeline.merge import merge
from worker.pipeline.task import Input, Reporter, Task

CPU = torch.device("cpu")
METHODS = [
    {"name": "linear"}, {"name": "task_arithmetic", "lambda": 0.5}, {"name": "ties", "density": 0.4},
    {"name": "dare_ties", "density": 0.5, "seed": 3, "rescale": True}, {"name": "dare_linear", "density": 0.5},
    {"name": "della", "density": 0.5}, {"name": "breadcrumbs", "density": 0.5}, {"name": "sce", "select_topk": 0.5},
    {"name": "model_stock", "filter_wise": True}, {"name": "nuslerp", "nuslerp_flatten": False}, {"name": "karcher"},
]  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("staging")
    base = make_checkpoint(folder / "base", seed=1, layers=2, tied=False)
    return [base, *(make_checkpoint(folder / f"e{i}", seed=i, like=base) for i in (2, 3))]


def make_task(work: Path, paths, method, *, device="cpu") -> Task:
    recipe = parse_recipe({
        "base": {"repo": "org/base"}, "method": method, "target": {"repo": "org/merged"},
        "experts": [{"repo": f"org/{path.name}"} for path in paths[1:]], "output": {"max_shard_bytes": 1_000_000},
    })  # fmt: skip
    inputs = tuple(
        Input(repo=f"org/{path.name}", revision="main", commit=str(i) * 40, path=path, digests={})
        for i, path in enumerate(paths)
    )
    return Task(job_id="mrg_test", attempt=1, recipe=recipe, inputs=inputs, work_dir=work, device=device)


def files(task: Task, **options) -> dict[str, bytes]:
    merge(task, None, Reporter(io.BytesIO()), **options)
    return {path.name: path.read_bytes() for path in task.output.glob("model*")}


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method["name"])
def test_the_lanes_change_no_byte(tmp_path, models, method):
    plain = files(make_task(tmp_path / "plain", models, method), staged=False)
    assert files(make_task(tmp_path / "staged", models, method), staged=True) == plain


def test_what_is_not_finite_is_named_from_within_the_lanes(tmp_path, models):
    broken = make_checkpoint(tmp_path / "broken", seed=9, like=models[0])
    name = "model.layers.1.mlp.up_proj.weight"
    rewrite_tensor(broken, name, lambda tensor: tensor.index_fill(0, torch.tensor([5]), float("nan")))
    with pytest.raises(SpearError) as caught:
        files(make_task(tmp_path / "work", [*models[:2], broken], {"name": "linear"}), staged=True)
    assert caught.value.code == Code.NONFINITE_TENSOR
    assert caught.value.names["tensor"] == name
    assert caught.value.names["repo"] == "org/broken"


def test_a_device_is_used_where_it_is_named_alone(tmp_path, models):
    of = {device: device_for(make_task(tmp_path, models, METHODS[2], device=device)) for device in ("auto", "cuda")}
    assert (of["auto"].type, of["cuda"].type) == ("cpu", "cuda")
    exact = make_task(tmp_path, models, {"name": "ties", "compat": "mergekit"}, device="cuda")
    assert device_for(exact) == CPU


class _Elsewhere(Workspace):
    """A workspace that says it is on a device, in host memory: the methods take the device's way."""

    def __init__(self) -> None:
        super().__init__()
        self.device = torch.device("cuda")

    def take(self, key: str, elements: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.empty(elements, dtype=dtype)


@pytest.mark.parametrize("keep", [1, 300, 9_000])
def test_selection_and_trim_are_the_same_on_a_device(keep):
    values = torch.randn(10_000, generator=torch.Generator().manual_seed(keep)).bfloat16().float()
    results = []
    for work in (Workspace(), _Elsewhere()):
        selection = Selection(keep, elements=len(values), work=work)
        selection.probe(values)
        selection.guess()
        while not selection.found:
            selection.check(values)
            selection.conclude_check()
        trimmed, trim = values.clone(), Trim(selection, work)
        trim(trimmed[:4000], 0)
        trim(trimmed[4000:], 4000)
        results.append(trimmed)
    assert torch.equal(*results)
    assert int(results[0].count_nonzero()) == keep


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method["name"])
def test_cuda_gives_the_cpu_s_tensors_to_one_rounding(tmp_path, models, method):
    plain = make_task(tmp_path / "cpu", models, method)
    there = make_task(tmp_path / "cuda", models, method, device="cuda")
    assert files(plain).keys() == files(there).keys()
    with Checkpoint.open(plain.output) as one, Checkpoint.open(there.output) as two:
        for name in one.tensors:
            left, right = one.read(name), two.read(name)
            near = torch.isclose(left.float(), right.float(), rtol=2**-7, atol=1e-7)
            assert near.all(), name
            same = (left == right).double().mean().item()
            assert same > 0.999, (name, same)
