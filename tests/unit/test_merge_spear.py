"""The merge of `spear` on real checkpoints: what is restored, what is left alone, what a kill or a full disk does."""

import io
import json
import math
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from app.errors import Code, SpearError
from app.recipes import parse_recipe
from tests.fixtures.models import make_checkpoint, rewrite_tensor
from worker.checkpoints.reader import Checkpoint
from worker.pipeline.merge import merge
from worker.pipeline.task import Input, Reporter, Task

Q, UP, K = (f"model.layers.{rest}.weight" for rest in ("0.self_attn.q_proj", "1.mlp.up_proj", "1.self_attn.k_proj"))
DECISIONS = {Q: 0.5, UP: 0.0, K: 1.0}


def make_task(work: Path, base: Path, adapted: Path, **output) -> Task:
    recipe = parse_recipe({
        "base": {"repo": "org/base"}, "experts": [{"repo": "org/adapted"}], "method": {"name": "spear"},
        "target": {"repo": "org/restored"}, "output": {"max_shard_bytes": 1_000_000, **output},
    })  # fmt: skip
    inputs = tuple(
        Input(repo=f"org/{path.name}", revision="main", commit=str(i) * 40, path=path, digests={})
        for i, path in enumerate((base, adapted))
    )
    return Task(job_id="mrg_test", attempt=1, recipe=recipe, inputs=inputs, work_dir=work)


def run(task: Task, decisions=DECISIONS):
    stream = io.BytesIO()
    result = merge(task, decisions, Reporter(stream))
    return result, [json.loads(line) for line in stream.getvalue().splitlines()]


def tensors(path: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in path.glob("*.safetensors") for name, tensor in load_file(file).items()}


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


def test_only_the_selected_tensors_change(tmp_path, base_model, adapted_model):
    result, _ = run(make_task(tmp_path, base_model, adapted_model))
    base, adapted, merged = tensors(base_model), tensors(adapted_model), tensors(tmp_path / "output")
    assert merged.keys() == adapted.keys()
    for name, tensor in merged.items():
        if name not in {Q, UP}:
            assert torch.equal(tensor, adapted[name])
            assert result.operations[name] == "copied_adapted"
    assert torch.equal(merged[UP], base[UP])
    assert result.operations[UP] == "copied_base"
    x, y = base[Q].double(), adapted[Q].double()
    theta = math.acos((x * y).sum() / (x.norm() * y.norm()))
    exact = (math.sin(theta / 2) * (x + y)) / math.sin(theta)
    assert ((merged[Q].double() - exact).abs() <= exact.abs() * 2**-8 * 1.001).all()
    assert result.operations[Q] == "slerp"
    assert result.lerp_fallbacks == 0


def test_the_result_loads_and_generates(tmp_path, base_model, adapted_model):
    result, _ = run(make_task(tmp_path, base_model, adapted_model))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "output")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "output")
    batch = tokenizer("Revenue rose", return_tensors="pt")
    assert model.generate(**batch, max_new_tokens=4, do_sample=False).shape[1] > batch["input_ids"].shape[1]
    assert model.config.tie_word_embeddings
    assert "lm_head.weight" not in result.operations
    assert tokenizer.chat_template


def test_progress_is_reported_per_tensor(tmp_path, base_model, adapted_model):
    result, events = run(make_task(tmp_path, base_model, adapted_model))
    steps = [event for event in events if event["kind"] == "step"]
    assert events[0]["kind"] == "stage"
    assert events[0]["unit"] == "bytes"
    assert [step["name"] for step in steps] == list(result.operations)
    assert [step["done"] for step in steps] == sorted(step["done"] for step in steps)
    assert steps[-1]["done"] <= events[0]["total"]


def test_the_inputs_sharding_does_not_matter(tmp_path, base_model, adapted_model):
    run(make_task(tmp_path / "a", base_model, adapted_model))
    for name, source in (("base", base_model), ("adapted", adapted_model)):
        shutil.copytree(source, tmp_path / name)
        (tmp_path / name / "model.safetensors.index.json").unlink()
        for file in (tmp_path / name).glob("*.safetensors"):
            file.unlink()
        save_file(dict(reversed(tensors(source).items())), tmp_path / name / "model.safetensors", {"format": "pt"})
    run(make_task(tmp_path / "b", tmp_path / "base", tmp_path / "adapted"))
    assert contents(tmp_path / "a" / "output") == contents(tmp_path / "b" / "output")


@pytest.mark.parametrize(("dtype", "stored"), [("float32", torch.float32), ("float16", torch.float16)])
def test_another_dtype_is_written_and_said(tmp_path, base_model, adapted_model, dtype, stored):
    run(make_task(tmp_path, base_model, adapted_model, dtype=dtype))
    merged, adapted = tensors(tmp_path / "output"), tensors(adapted_model)
    assert {tensor.dtype for tensor in merged.values()} == {stored}
    assert torch.equal(merged["model.norm.weight"], adapted["model.norm.weight"].to(stored))
    config = json.loads((tmp_path / "output" / "config.json").read_text())
    assert {config.get("dtype"), config.get("torch_dtype")} - {None} == {dtype}


def test_an_untied_head_and_extra_tensors_are_carried_over(tmp_path):
    base = make_checkpoint(tmp_path / "base", tied=False, max_shard_size="1GB")
    adapted = make_checkpoint(tmp_path / "adapted", like=base, seed=4, max_shard_size="1GB")
    extra = {"vision.proj": torch.ones(3, 5), "steps": torch.tensor([7])}
    save_file(tensors(adapted) | extra, adapted / "model.safetensors", {"format": "pt"})
    result, _ = run(make_task(tmp_path / "work", base, adapted))
    merged = tensors(tmp_path / "work" / "output")
    assert torch.equal(merged["lm_head.weight"], tensors(adapted)["lm_head.weight"])
    assert all(torch.equal(merged[name], tensor) for name, tensor in extra.items())
    assert {result.operations[name] for name in extra} == {"carried_over"}


@pytest.mark.parametrize("name", [Q, UP, "model.norm.weight"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_named(tmp_path, base_model, adapted_model, name, value):
    guilty = "base" if name == UP else "adapted"
    shutil.copytree(adapted_model if guilty == "adapted" else base_model, tmp_path / guilty)

    def spoil(tensor):
        tensor.view(-1)[-1] = value
        return tensor

    rewrite_tensor(tmp_path / guilty, name, spoil)
    models = {"base": base_model, "adapted": adapted_model, guilty: tmp_path / guilty}
    with pytest.raises(SpearError) as caught:
        run(make_task(tmp_path / "work", models["base"], models["adapted"]))
    assert caught.value.code == Code.NONFINITE_TENSOR
    assert caught.value.names["tensor"] == name
    assert caught.value.names["repo"] == f"org/{guilty}"
    assert list((tmp_path / "work" / "output").iterdir()) == []


def test_values_too_large_for_the_asked_dtype_are_named(tmp_path, base_model, adapted_model):
    shutil.copytree(adapted_model, tmp_path / "adapted")
    rewrite_tensor(tmp_path / "adapted", "model.norm.weight", lambda tensor: tensor * 1e6)
    with pytest.raises(SpearError, match="overflow") as caught:
        run(make_task(tmp_path / "work", base_model, tmp_path / "adapted", dtype="float16"))
    assert caught.value.code == Code.NONFINITE_TENSOR


def test_another_shape_is_named(tmp_path, base_model):
    other = make_checkpoint(tmp_path / "other", vocabulary=328)
    with pytest.raises(SpearError) as caught:
        run(make_task(tmp_path / "work", base_model, other))
    assert caught.value.code == Code.SHAPE_MISMATCH
    assert caught.value.names["tensor"] == "model.embed_tokens.weight"
    assert caught.value.names["file"].endswith(".safetensors")


def test_a_full_disk_leaves_no_files_and_a_retry_succeeds(tmp_path, base_model, adapted_model):
    task = make_task(tmp_path, base_model, adapted_model)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(SpearError) as caught:
            run(task)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.code == Code.DISK_FULL
    assert list(task.output.iterdir()) == []
    assert run(task)[0].resumed == 0


CHILD = """
import sys
from pathlib import Path
import torch
from worker.pipeline.merge import merge
from worker.pipeline.task import Reporter, Task

class Paced:
    "Says one line, then waits until the parent has read it."
    def write(self, line):
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
        sys.stdin.buffer.read(1)
    def flush(self):
        pass

torch.set_num_threads(1)
merge(Task.model_validate_json(sys.argv[1]), %r, Reporter(Paced()))
"""


def kill_after(task: Task, *, tensors: int) -> None:
    """Runs the merge in a process of its own and kills it when so many more tensors are finished."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD % DECISIONS, task.model_dump_json()],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2], env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    with child:
        while tensors >= 0:
            tensors -= "resumed" not in json.loads(child.stdout.readline())
            child.stdin.write(b".")
            child.stdin.flush()
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL


def test_a_killed_merge_goes_on_to_the_same_bytes(tmp_path, base_model, adapted_model):
    run(make_task(tmp_path / "undisturbed", base_model, adapted_model))
    task = make_task(tmp_path / "killed", base_model, adapted_model)
    points = [random.Random(os.getpid()).randrange(1, 10) for _ in range(2)]
    for point in points:
        kill_after(task, tensors=point)
        assert list(task.output.glob("*.safetensors")) == []
    result, _ = run(task)
    assert result.resumed >= sum(points), points
    assert result.operations[Q] == "slerp"
    assert contents(task.output) == contents(tmp_path / "undisturbed" / "output")


def test_a_killed_merge_with_other_decisions_starts_anew(tmp_path, base_model, adapted_model):
    task = make_task(tmp_path, base_model, adapted_model)
    kill_after(task, tensors=5)
    assert run(task, {**DECISIONS, K: 0.3})[0].resumed == 0


def anonymous_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("RssAnon"))) * 1024


class Watching(io.BytesIO):
    """A stream that notes the anonymous memory at every line."""

    peak = 0

    def flush(self) -> None:
        self.peak = max(self.peak, anonymous_bytes())


def test_memory_does_not_grow_with_the_model(tmp_path):
    growth = []
    for name, hidden in (("small", 256), ("large", 1024)):
        base = make_checkpoint(tmp_path / name, hidden=hidden, layers=2, max_shard_size="8MB")
        run(make_task(tmp_path / f"{name}-warm", base, base), {})
        with Checkpoint.open(base) as checkpoint:
            decisions = dict.fromkeys(checkpoint.tensors, 0.5)
        stream = Watching()
        before = anonymous_bytes()
        merge(make_task(tmp_path / f"{name}-work", base, base), decisions, Reporter(stream))
        growth.append(stream.peak - before)
    assert max(growth) < 24 * 2**20, growth
    assert growth[1] - growth[0] < 8 * 2**20, growth
