"""A tensor of zeros has no direction: methods on the sphere interpolate it linearly, and the report names it."""

import io
import json
import shutil

import pytest
import torch

from app.recipes import parse_recipe
from tests.fixtures.models import make_checkpoint, rewrite_tensor
from worker.checkpoints.reader import Checkpoint
from worker.methods import Chunk, Spec, Workspace
from worker.methods.nuslerp import NuSlerp
from worker.pipeline.run import run
from worker.pipeline.task import Input, Reporter, Task

NAME = "model.layers.1.mlp.up_proj.weight"


def run_with(tmp_path, method, paths):
    recipe = parse_recipe({
        "base": {"repo": "org/m0"}, "experts": [{"repo": f"org/m{i}"} for i in range(1, len(paths))],
        "method": method, "target": {"repo": "org/out"},
    })  # fmt: skip
    inputs = tuple(
        Input(repo=f"org/m{i}", revision="main", commit=str(i) * 40, path=path, digests={})
        for i, path in enumerate(paths)
    )
    work = tmp_path / "work"
    work.mkdir()
    stream = io.BytesIO()
    run(Task(job_id="mrg_test", attempt=1, recipe=recipe, inputs=inputs, work_dir=work), Reporter(stream))
    said = [json.loads(line) for line in stream.getvalue().splitlines()]
    return work / "output", [word["message"] for word in said if word["kind"] == "warning"]


def read(path):
    with Checkpoint.open(path) as checkpoint:
        return checkpoint.read(NAME)


@pytest.mark.parametrize(("method", "count"), [({"name": "slerp", "t": 0.25}, 1), ({"name": "nuslerp"}, 2)])
@pytest.mark.parametrize("which", ["first", "last"])
def test_the_report_names_the_tensor(tmp_path, method, count, which):
    paths = [make_checkpoint(tmp_path / "base", seed=1, dtype=torch.float32)]
    paths += [make_checkpoint(tmp_path / f"e{i}", seed=i, like=paths[0], dtype=torch.float32) for i in (2, 3)[:count]]
    pair = paths[-2:]
    rewrite_tensor(pair[which == "last"], NAME, torch.zeros_like)
    output, told = run_with(tmp_path, method, paths)
    report = json.loads((output / "report.json").read_text())
    manifest = json.loads((output / "merge_manifest.json").read_text())
    noted = {entry["name"] for entry in manifest["decisions"] if entry["operation"] == "lerp_zero_norm"}
    assert noted == {NAME}
    assert report["merge"]["lerp_fallbacks"] >= 1
    for warnings in (report["warnings"], told):
        assert [warning for warning in warnings if NAME in warning and "all zeros" in warning]
    t = method.get("t", 0.5)
    one, two, merged = (read(path) for path in (*pair, output))
    assert torch.allclose(merged, (1 - t) * one + t * two, atol=1e-7)


def test_no_change_is_no_missing_direction(tmp_path):
    """nuslerp of task vectors: where an expert is the base it has changed nothing, and nobody is warned."""
    base = make_checkpoint(tmp_path / "base", seed=1)
    expert = make_checkpoint(tmp_path / "expert", seed=2, like=base)
    same = shutil.copytree(base, tmp_path / "same")
    _, told = run_with(tmp_path, {"name": "nuslerp", "task_vectors": True}, [base, expert, same])
    assert not [message for message in told if "all zeros" in message]


@pytest.mark.parametrize("parameters", [
    {"nuslerp_flatten": True, "nuslerp_row_wise": False}, {"nuslerp_flatten": False, "nuslerp_row_wise": False},
    {"nuslerp_flatten": False, "nuslerp_row_wise": True},
], ids=["whole", "rows", "columns"])  # fmt: skip
def test_nuslerp_is_linear_where_one_side_is_zero(parameters):
    one = torch.arange(1.0, 13.0)
    spec = Spec("w", (3, 4), {**parameters, "task_vectors": False}, ({"weight": 3.0}, {"weight": 1.0}))
    method, chunk = NuSlerp.made_for(spec, Workspace()), Chunk(0, 12, torch.empty(0), (one, torch.zeros(12)))
    while method.turn < method.surveys:
        method.survey(chunk)
        method.conclude()
        method.turn += 1
    out = torch.empty(12)
    method.merge(chunk, out)
    assert torch.allclose(out, one * 0.75)
