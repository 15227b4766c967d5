"""Whole merges by the catalogue's methods: parameters by filter and depth, per expert, dtypes, resumption."""

import io
import json
from pathlib import Path
from shutil import copytree

import pytest
import torch
from safetensors.torch import load_file, save_file

from app.errors import Code, SpearError
from app.recipes import parse_recipe
from app.recipes.coverage import check_chances
from app.recipes.depth import Depths, layer_count
from app.recipes.vectors import counted
from tests.fixtures.models import make_checkpoint, rewrite_tensor
from worker.checkpoints.reader import Checkpoint
from worker.checkpoints.writer import ShardedWriter
from worker.pipeline.merge import merge
from worker.pipeline.operations import digest, plan_operations
from worker.pipeline.task import Input, Reporter, Task
from worker.pipeline.verify import verify


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A base and two experts of four layers, fp32, untied: [base, one, two]."""
    folder = tmp_path_factory.mktemp("catalogue")
    base = make_checkpoint(folder / "base", seed=1, layers=4, tied=False, dtype=torch.float32)
    return [base, *(make_checkpoint(folder / f"e{i}", seed=i, like=base, dtype=torch.float32) for i in (2, 3))]


def make_task(work: Path, paths, method, *, experts=None, **output) -> Task:
    recipe = parse_recipe({
        "base": {"repo": "org/base"}, "method": method, "target": {"repo": "org/merged"},
        "experts": [{"repo": f"org/{p.name}"} | e for p, e in zip(paths[1:], experts or [{}] * 9, strict=False)],
        "output": {"max_shard_bytes": 1_000_000, **output},
    })  # fmt: skip
    inputs = tuple(
        Input(repo=f"org/{path.name}", revision="main", commit=str(i) * 40, path=path, digests={})
        for i, path in enumerate(paths)
    )
    return Task(job_id="mrg_test", attempt=1, recipe=recipe, inputs=inputs, work_dir=work)


def run(task: Task):
    result = merge(task, None, Reporter(io.BytesIO()))
    verify(task, None, result, Reporter(io.BytesIO()))
    return result, tensors(task.output)


def tensors(path: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in path.glob("*.safetensors") for name, tensor in load_file(file).items()}


METHODS = [
    {"name": "linear"}, {"name": "task_arithmetic", "lambda": 0.5}, {"name": "ties", "density": 0.4},
    {"name": "dare_ties", "density": 0.5, "seed": 3}, {"name": "dare_linear", "density": 0.5},
    {"name": "della", "density": 0.5}, {"name": "breadcrumbs", "density": 0.5}, {"name": "sce", "select_topk": 0.5},
    {"name": "model_stock"}, {"name": "karcher"}, {"name": "multislerp"}, {"name": "nuslerp"},
    {"name": "ties", "density": 0.4, "compat": "mergekit"}, {"name": "dare_ties", "density": 0.4, "compat": "mergekit"},
]  # fmt: skip


@pytest.mark.parametrize("method", METHODS, ids=lambda method: "-".join(map(str, method.values())))
def test_a_merge_goes_through_and_is_the_same_again(tmp_path, models, method):
    result, merged = run(make_task(tmp_path / "a", models, method))
    assert merged.keys() == tensors(models[1]).keys()
    assert set(result.operations.values()) == {method["name"]}
    _, again = run(make_task(tmp_path / "b", models, method))
    assert all(torch.equal(merged[name], again[name]) for name in merged)


@pytest.mark.parametrize("name", ["slerp", "nearswap", "wise_ft", "lines", "dg_hard", "arcee_fusion", "passthrough"])
def test_a_merge_of_one_expert_goes_through(tmp_path, models, name):
    method = {"name": name} | ({"t": 0.5} if name in {"slerp", "nearswap"} else {})
    _, merged = run(make_task(tmp_path, models[:2], method))
    assert merged.keys() == tensors(models[1]).keys()


def test_values_by_filter_and_over_depth(tmp_path, models):
    t = [{"filter": "self_attn", "value": [0.0, 1.0]}, {"filter": "embed", "value": 1.0}, {"value": 0.25}]
    _, merged = run(make_task(tmp_path, models[:2], {"name": "wise_ft", "alpha": t}))
    base, expert = tensors(models[0]), tensors(models[1])
    for name, tensor in merged.items():
        elsewhere = 1.0 if "embed" in name else 0.25
        alpha = int(name.split(".")[2]) / 3 if "self_attn" in name else elsewhere
        expected = (1 - alpha) * base[name].double() + alpha * expert[name].double()
        torch.testing.assert_close(tensor.double(), expected, rtol=1e-6, atol=1e-8)
    assert torch.equal(merged["model.embed_tokens.weight"], expert["model.embed_tokens.weight"])


def test_lines_scales_with_depth(tmp_path, models):
    _, merged = run(make_task(tmp_path, models[:2], {"name": "lines", "alpha": 0.4}))
    base, expert = tensors(models[0]), tensors(models[1])
    for layer, factor in enumerate((0.4, 0.6, 0.8, 1.0)):
        name = f"model.layers.{layer}.mlp.up_proj.weight"
        expected = base[name] + factor * (expert[name] - base[name])
        torch.testing.assert_close(merged[name], expected, rtol=1e-6, atol=1e-8)


def test_layers_are_counted_within_their_stack():
    stacks = {"model.layers": 4, "visual.blocks": 32, "mtp.layers": 1}
    depths = Depths([f"{stack}.{layer}.proj.weight" for stack, count in stacks.items() for layer in range(count)])
    assert [depths.of(f"model.layers.{layer}.proj.weight") for layer in range(4)] == [0, 1 / 3, 2 / 3, 1]
    assert (depths.of("visual.blocks.31.proj.weight"), depths.of("mtp.layers.0.proj.weight")) == (1, 1)
    assert depths.of("lm_head.weight") == 0


def test_a_layer_behind_the_last_shifts_nothing():
    names = [f"model.layers.{layer}.proj.weight" for layer in range(5)] + ["visual.blocks.7.proj.weight"]
    depths = Depths(names, layers=layer_count({"text_config": {"num_hidden_layers": 4}}))
    assert [depths.of(name) for name in names] == [0, 1 / 3, 2 / 3, 1, 1, 1]
    assert layer_count({"num_hidden_layers": 2}) == 2
    assert layer_count({"model_type": "x"}) is None


def test_parameters_of_one_expert_count_for_it_alone(tmp_path, models):
    settings = [{"weight": 0.0}, {"weight": 1.0, "density": 1.0}]
    method = {"name": "dare_linear", "density": 0.1}
    _, merged = run(make_task(tmp_path, models, method, experts=settings))
    expected = tensors(models[2])
    assert all(torch.allclose(merged[name], expected[name], rtol=1e-6, atol=1e-8) for name in merged)


def test_the_base_may_be_an_expert(tmp_path, models):
    _, merged = run(make_task(tmp_path, [models[0], models[0], models[1]], {"name": "linear"}))
    base, expert = tensors(models[0]), tensors(models[1])
    assert all(torch.allclose(merged[name], (base[name] + expert[name]) / 2, atol=1e-8) for name in merged)


@pytest.mark.parametrize("method", [
    {"name": "task_arithmetic", "normalize": True}, {"name": "ties", "density": 0.4}, {"name": "sce"},
    {"name": "dare_linear", "normalize": True, "density": 0.5}, {"name": "model_stock"},
    {"name": "task_arithmetic", "normalize": True, "compat": "mergekit"},
])  # fmt: skip
def test_the_base_among_the_experts_has_no_task_vector(tmp_path, models, method):
    base, one, two = models
    plain = make_task(tmp_path / "plain", models, method, experts=[{"weight": 1.0}, {"weight": 1.0}])
    listed = make_task(tmp_path / "listed", [base, one, base, two], method, experts=[{"weight": 1.0}] * 3)
    inputs = tuple(plain.inputs[number] for number in (0, 1, 0, 2))
    expected, found = (run(task)[1] for task in (plain, listed.model_copy(update={"inputs": inputs})))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_merge_of_nothing_but_the_base_is_refused():
    body = {"base": {"repo": "a/b"}, "experts": [{"repo": "a/c"}, {"repo": "a/b"}], "target": {"repo": "a/d"}}
    models = [("a/b", "0"), ("a/c", "1"), ("a/b", "0")]
    assert counted(parse_recipe(body | {"method": {"name": "ties"}}).method, models) == (1,)
    assert counted(parse_recipe(body | {"method": {"name": "linear"}}).method, models) == (1, 2)
    with pytest.raises(SpearError, match="beside the base") as caught:
        counted(parse_recipe(body | {"method": {"name": "model_stock"}}).method, models)
    assert caught.value.pointer == "/experts"


@pytest.mark.parametrize(("said", "head"), [
    ({"model_type": "gemma2"}, "lm_head.weight"), ({"tie_word_embeddings": True}, "lm_head.weight"),
    ({"text_config": {"tie_word_embeddings": True}}, "embed_out.weight"),
])  # fmt: skip
def test_a_head_that_is_tied_is_not_written(tmp_path, said, head):
    rows = {"model.embed_tokens.weight": torch.ones(4, 2), head: torch.zeros(4, 2)}
    for name in ("base", "one"):
        (tmp_path / name).mkdir()
        save_file(rows, tmp_path / name / "model.safetensors")
        (tmp_path / name / "config.json").write_text(json.dumps(said))
    _, merged = run(make_task(tmp_path / "work", [tmp_path / "base", tmp_path / "one"], {"name": "linear"}))
    assert merged.keys() == {"model.embed_tokens.weight"}


def test_a_filter_that_leaves_tensors_out_is_refused(tmp_path, models):
    method = {"name": "slerp", "t": [{"filter": "self_attn", "value": 0.5}]}
    with pytest.raises(SpearError) as caught:
        run(make_task(tmp_path, models[:2], method))
    assert caught.value.code == Code.INVALID_RECIPE
    assert caught.value.pointer == "/method/t"


@pytest.mark.parametrize(("method", "expert", "pointer"), [
    ({"name": "ties", "density": 1.5}, {}, "/method/density"),
    ({"name": "ties", "density": [0.5, -0.1]}, {}, "/method/density"),
    ({"name": "ties"}, {"density": 2}, "/experts/0/density"),
    ({"name": "slerp", "t": [{"filter": "x", "value": 7}]}, {}, "/method/t"),
    ({"name": "linear"}, {"gamma": 0.1}, ""),
    ({"name": "slerp", "t": []}, {}, "/method/t"),
    ({"name": "slerp", "t": [{"filter": "x", "value": []}]}, {}, "/method/t"),
    ({"name": "ties"}, {"weight": []}, "/experts/0/weight"),
])  # fmt: skip
def test_values_out_of_range_are_refused_with_their_place(method, expert, pointer):
    body = {"base": {"repo": "a/b"}, "experts": [{"repo": "a/c"} | expert], "method": method, "target": {"repo": "a/d"}}
    with pytest.raises(SpearError) as caught:
        parse_recipe(body)
    assert caught.value.code == Code.INVALID_RECIPE
    assert any(error["pointer"] == pointer for error in caught.value.names["errors"])
    assert not any("[" in error["pointer"] for error in caught.value.names["errors"])


@pytest.mark.parametrize(("method", "expert", "pointer"), [
    ({"density": 0.05}, {}, "/method/epsilon"),
    ({"density": 0.95}, {}, "/method/epsilon"),
    ({"density": 0.5}, {"density": 0.9}, "/experts/0/density"),
    ({"density": 0.5}, {"epsilon": 0.5}, "/experts/0/epsilon"),
    ({"density": [0.5, 0.9]}, {}, "/method/epsilon"),
    ({"density": 0.5}, {"density": 1.0, "epsilon": 0.9}, None),
    ({"density": 0.05, "epsilon": 0.04}, {}, None),
])  # fmt: skip
def test_dellas_probabilities_are_checked_before_queueing(method, expert, pointer):
    body = {"base": {"repo": "a/b"}, "experts": [{"repo": "a/c"} | expert], "target": {"repo": "a/d"},
            "method": {"name": "della"} | method}  # fmt: skip
    names = ["model.layers.0.q.weight", "model.layers.1.q.weight"]
    if pointer is None:
        check_chances(parse_recipe(body), names)
        return
    with pytest.raises(SpearError, match="epsilon") as caught:
        check_chances(parse_recipe(body), names)
    assert (caught.value.code, caught.value.pointer) == (Code.INVALID_RECIPE, pointer)


def test_what_the_method_cannot_do_is_named(tmp_path, models):
    method = {"name": "della", "density": 0.95, "epsilon": 0.2}
    with pytest.raises(SpearError, match="epsilon") as caught:
        run(make_task(tmp_path, models, method))
    assert caught.value.code == Code.MERGE_UNDEFINED
    assert list((tmp_path / "output").iterdir()) == []


@pytest.mark.parametrize("place", [0, 1, 2])
def test_integers_beside_floats_are_named(tmp_path, models, place):
    """Whichever model has them: they are never merged, and never carried over from one of several."""
    name = "model.layers.2.mlp.down_proj.weight"
    paths = [*models]
    paths[place] = tmp_path / "other"
    copytree(models[place], paths[place])
    rewrite_tensor(paths[place], name, lambda tensor: (tensor * 100).to(torch.int32))
    task = make_task(tmp_path / "work", paths, {"name": "ties", "density": 0.5})
    with pytest.raises(SpearError) as caught:
        run(task)
    assert caught.value.code == Code.DTYPE_MISMATCH
    assert caught.value.names["tensor"] == name
    assert caught.value.names["file"].endswith(".safetensors")
    assert not list(task.output.glob("*"))


def test_directions_that_cancel_out_are_named(tmp_path, models):
    name = "model.layers.2.mlp.down_proj.weight"
    paths = [*models[:2], tmp_path / "twin", tmp_path / "opposite"]
    for copy in paths[2:]:
        copytree(models[1], copy)
    rewrite_tensor(paths[3], name, lambda tensor: -tensor)
    weights = [{"weight": each} for each in (0.25, 0.25, 0.5)]
    task = make_task(tmp_path / "work", paths, {"name": "multislerp"}, experts=weights)
    with pytest.raises(SpearError) as caught:
        run(task)
    assert caught.value.code == Code.ZERO_NORM
    assert caught.value.names["tensor"] == name
    assert caught.value.names["file"].endswith(".safetensors")
    assert not list(task.output.glob("*"))


@pytest.mark.parametrize("method", [
    {"name": "ties", "density": 0.3}, {"name": "dare_linear", "density": 0.3, "rescale": False},
    {"name": "ties", "density": 0, "rescale": False}, {"name": "della", "density": 0, "rescale": False},
    {"name": "breadcrumbs", "density": 0, "rescale": False}, {"name": "sce", "select_topk": 0},
])  # fmt: skip
def test_nan_is_named_even_where_it_would_be_dropped(tmp_path, models, method):
    spoiled = make_checkpoint(tmp_path / "spoiled", seed=9, like=models[0], dtype=torch.float32)
    name = "model.layers.2.mlp.down_proj.weight"

    def spoil(tensor):
        tensor[5, 5] = float("nan")
        return tensor

    rewrite_tensor(spoiled, name, spoil)
    with pytest.raises(SpearError) as caught:
        run(make_task(tmp_path / "work", [*models[:2], spoiled], method))
    assert caught.value.code == Code.NONFINITE_TENSOR
    assert (caught.value.names["tensor"], caught.value.names["repo"]) == (name, "org/spoiled")
    assert caught.value.names["file"].endswith(".safetensors")


@pytest.mark.parametrize("compat", [None, "mergekit"])
def test_a_random_merge_resumes_to_the_same_bytes(tmp_path, models, compat):
    method = {"name": "dare_ties", "density": 0.5, "seed": 5, "compat": compat}
    _, expected = run(make_task(tmp_path / "undisturbed", models, method))
    task = make_task(tmp_path / "stopped", models, method)

    class Stop(io.BytesIO):
        def write(self, line):
            if json.loads(line).get("name") == "model.layers.1.mlp.up_proj.weight":
                raise InterruptedError
            return len(line)

    with pytest.raises(InterruptedError):
        merge(task, None, Reporter(Stop()))
    result, merged = run(task)
    assert result.resumed > 3
    assert all(torch.equal(merged[name], expected[name]) for name in expected)


def test_the_plan_depends_on_all_that_the_bytes_depend_on(tmp_path, models):
    def plan(**changes):
        method = {"name": "dare_ties", "density": 0.5, "seed": 5} | changes
        task = make_task(tmp_path, models, method)
        checkpoints = [Checkpoint.open(path) for path in models]
        found = digest(task, plan_operations(task, checkpoints, None))
        for checkpoint in checkpoints:
            checkpoint.close()
        return found

    assert plan() == plan()
    assert len({plan(), plan(seed=6), plan(density=0.4), plan(normalize=True), plan(compat="mergekit")}) == 5


def test_a_writer_and_a_merge_agree_on_the_order(tmp_path, models):
    task = make_task(tmp_path, models, {"name": "linear"})
    result, _ = run(task)
    checkpoint = Checkpoint.open(models[0])
    with checkpoint, ShardedWriter(
        tmp_path / "x", tensors=[(n, t.dtype, t.shape) for n, t in checkpoint.tensors.items()],
        max_shard_bytes=10**9, journal=tmp_path / "j", plan="p",
    ) as writer:  # fmt: skip
        assert list(result.operations) == writer.order
