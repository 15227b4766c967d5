"""Verification finds every kind of damage, and names it."""

import io
import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
import torch

from app.errors import Code, SpearError
from app.recipes import parse_recipe
from tests.fixtures.models import rewrite_tensor
from worker.pipeline.merge import merge
from worker.pipeline.task import Input, Reporter, Task
from worker.pipeline.verify import verify

Q = "model.layers.0.self_attn.q_proj.weight"
NORM = "model.norm.weight"
DECISIONS = {Q: 0.5, "model.layers.1.mlp.up_proj.weight": 0.0}


@pytest.fixture
def merged(tmp_path, base_model, adapted_model):
    recipe = parse_recipe({
        "base": {"repo": "org/base"}, "experts": [{"repo": "org/adapted"}], "method": {"name": "spear"},
        "target": {"repo": "org/restored"},
    })  # fmt: skip
    inputs = tuple(
        Input(repo=f"org/{path.name}", revision="main", commit="0" * 40, path=path, digests={})
        for path in (base_model, adapted_model)
    )
    task = Task(job_id="mrg_test", attempt=1, recipe=recipe, inputs=inputs, work_dir=tmp_path)
    return task, merge(task, DECISIONS, Reporter(io.BytesIO()))


def check(task, result, decisions=DECISIONS):
    return verify(task, decisions, result, Reporter(io.BytesIO()))


def fails(task, result, decisions=DECISIONS) -> SpearError:
    with pytest.raises(SpearError) as caught:
        check(task, result, decisions)
    assert caught.value.code == Code.VERIFICATION_FAILED
    return caught.value


def test_a_good_output_passes_with_its_digests(merged):
    task, result = merged
    found = check(task, result)
    assert found.tensors == len(result.operations)
    assert found.identical == found.tensors - 1
    for file in found.files:
        assert sha256((task.output / file.name).read_bytes()).hexdigest() == file.sha256


def test_a_changed_byte_is_found(merged):
    task, result = merged
    file = task.output / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert fails(task, result).names["file"] == "model.safetensors"


@pytest.mark.parametrize(("name", "value"), [(NORM, float("nan")), (Q, float("inf"))])
def test_a_value_that_is_not_finite_is_named(merged, name, value):
    task, result = merged
    rewrite_tensor(task.output, name, lambda tensor: torch.full_like(tensor, value))
    assert fails(task, result).names["tensor"] == name


def test_a_changed_unselected_tensor_is_named(merged):
    task, result = merged
    rewrite_tensor(task.output, NORM, lambda tensor: tensor * 2)
    assert fails(task, result).names["tensor"] == NORM


def test_a_tensor_restored_against_the_decisions_is_named(merged):
    task, result = merged
    assert fails(task, result, {}).names["tensor"] in DECISIONS


def test_a_missing_tensor_a_wrong_shape_and_a_wrong_dtype_are_named(merged):
    task, result = merged
    assert fails(task, replace(result, operations={**result.operations, "ghost": "slerp"})).names["tensor"] == "ghost"
    kept = Path(shutil.copytree(task.output, task.work_dir / "kept"))
    rewrite_tensor(task.output, NORM, lambda tensor: tensor[:3])
    assert fails(task, result).names["tensor"] == NORM
    shutil.copytree(kept, task.output, dirs_exist_ok=True)
    rewrite_tensor(task.output, NORM, lambda tensor: tensor.float())
    assert fails(task, result).names["tensor"] == NORM


def test_a_missing_file_is_named(merged):
    task, result = merged
    (task.output / "model.safetensors").unlink()
    assert fails(task, result).names["file"] == "model.safetensors"
