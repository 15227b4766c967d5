"""Merges made in memory equal, bit for bit, what a merge writes and transformers loads."""

import io
from pathlib import Path

import pytest
import torch

from app.recipes import parse_recipe
from tests.fixtures.models import make_checkpoint
from worker.pipeline.live import Live
from worker.pipeline.merge import merge
from worker.pipeline.task import Input, Reporter, Task


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Untied fp32 models, and tied bf16 ones: {dtype: [base, one, two]}."""
    found = {}
    for dtype, tied in ((torch.float32, False), (torch.bfloat16, True)):
        folder = tmp_path_factory.mktemp(str(dtype))
        base = make_checkpoint(folder / "base", seed=1, tied=tied, dtype=dtype)
        found[dtype] = [base, *(make_checkpoint(folder / f"e{i}", seed=i, like=base, dtype=dtype) for i in (2, 3))]
    return found


def make_task(work: Path, paths, method, **output) -> Task:
    recipe = parse_recipe({
        "base": {"repo": "org/base"}, "method": method, "target": {"repo": "org/merged"}, "output": output,
        "experts": [{"repo": f"org/{path.name}"} for path in paths[1:]],
    })  # fmt: skip
    inputs = tuple(
        Input(repo=f"org/{path.name}", revision="main", commit=str(i) * 40, path=path, digests={})
        for i, path in enumerate(paths)
    )
    return Task(job_id="mrg_test", attempt=1, recipe=recipe, inputs=inputs, work_dir=work)


def loaded(path: Path):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()


def same(live, path: Path) -> bool:
    expected = dict(loaded(path).named_parameters())
    found = dict(live.model.named_parameters())
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


METHODS = [
    {"name": "task_arithmetic", "lambda": 0.7}, {"name": "ties", "density": 0.4},
    {"name": "dare_ties", "density": 0.5, "seed": 3}, {"name": "linear"}, {"name": "model_stock"},
    {"name": "ties", "density": 0.4, "compat": "mergekit"}, {"name": "dare_ties", "density": 0.4, "compat": "mergekit"},
]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("method", METHODS, ids=lambda method: "-".join(map(str, method.values())))
def test_a_live_model_is_what_a_merge_writes(tmp_path, models, dtype, method):
    task = make_task(tmp_path, models[dtype], method)
    live = Live(loaded(models[dtype][0]))
    live.become(make_task(tmp_path / "other", models[dtype], method))
    live.become(make_task(tmp_path / "third", models[dtype], {"name": "task_arithmetic", "lambda": -3.0}))
    live.become(task)  # nothing of the merges before is left
    merge(task, None, Reporter(io.BytesIO()))
    assert same(live, task.output)


def test_one_expert_of_several_and_another_dtype(tmp_path, models):
    paths = models[torch.float32]
    task = make_task(tmp_path, [paths[0], paths[2]], {"name": "wise_ft", "alpha": 0.3}, dtype="bfloat16")
    live = Live(loaded(paths[1]))
    live.become(task)
    merge(task, None, Reporter(io.BytesIO()))
    assert same(live, task.output)


def test_decisions_restore_as_in_a_merge(tmp_path, models):
    paths = models[torch.bfloat16][:2]
    task = make_task(tmp_path, paths, {"name": "slerp", "t": 0.5})
    decisions = {"model.embed_tokens.weight": 0.25, "model.layers.0.mlp.up_proj.weight": 0.0}
    live = Live(loaded(paths[0]))
    live.become(task, decisions)
    merge(task, decisions, Reporter(io.BytesIO()))
    assert same(live, task.output)


def test_weights_of_other_names_go_through_transformers(tmp_path):
    """gpt2's files call `transformer.h` what older ones call `h`: transformers maps them, and so do we."""
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForCausalLM, GPT2Config

    paths = []
    for number in range(3):
        torch.manual_seed(number)
        model = AutoModelForCausalLM.from_config(GPT2Config(n_layer=1, n_head=2, n_embd=16, vocab_size=64))
        paths.append(tmp_path / f"m{number}")
        model.save_pretrained(paths[-1])
        file = paths[-1] / "model.safetensors"
        short = {name.removeprefix("transformer."): tensor for name, tensor in load_file(file).items()}
        save_file(short, file, metadata={"format": "pt"})
    task = make_task(tmp_path / "work", paths, {"name": "task_arithmetic", "lambda": 0.5})
    live = Live(loaded(paths[0]))
    assert "h.0.attn.c_attn.weight" not in dict(live.model.named_parameters())
    live.become(task)
    merge(task, None, Reporter(io.BytesIO()))
    assert same(live, task.output)
