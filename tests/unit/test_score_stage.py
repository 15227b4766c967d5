"""The stages scoring and selecting on real files: rows, cache, progress, refusals."""

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from app.errors import Code, SpearError
from app.recipes import parse_recipe
from worker.pipeline.score import Scores, score
from worker.pipeline.select import select
from worker.pipeline.task import Input, Reporter, Task

LAYERS, HIDDEN, WIDE, KV = 4, 48, 128, 24
SHAPES = {
    "self_attn.q_proj": (HIDDEN, HIDDEN), "self_attn.k_proj": (KV, HIDDEN), "self_attn.v_proj": (KV, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN), "mlp.gate_proj": (WIDE, HIDDEN), "mlp.up_proj": (WIDE, HIDDEN),
    "mlp.down_proj": (HIDDEN, WIDE),
}  # fmt: skip


def base_weights() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    tensors = {"model.embed_tokens.weight": torch.randn(100, HIDDEN, generator=generator)}
    for layer in range(LAYERS):
        tensors[f"model.layers.{layer}.input_layernorm.weight"] = torch.ones(HIDDEN)
        for part, shape in SHAPES.items():
            tensors[f"model.layers.{layer}.{part}.weight"] = torch.randn(shape, generator=generator) * 0.05
    return {name: tensor.bfloat16() for name, tensor in tensors.items()}


def adapt(tensors: Mapping[str, Tensor], *, seed: int = 1, change: float = 0.05) -> dict[str, Tensor]:
    """The later a layer, the more it changes."""
    generator = torch.Generator().manual_seed(seed)
    out = {}
    for position, (name, tensor) in enumerate(tensors.items()):
        noise = torch.randn(tensor.shape, generator=generator)
        out[name] = (tensor.float() + change * (1 + position / 10) * tensor.float().norm() / noise.norm() * noise).to(
            tensor.dtype
        )
    return out


def write(path: Path, tensors: Mapping[str, Tensor]) -> Path:
    path.mkdir(exist_ok=True)
    save_file(dict(tensors), path / "model.safetensors", metadata={"format": "pt"})
    (path / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}))
    return path


def source(path: Path, *, repo: str) -> Input:
    files = {f.name: f"sha256:{hashlib.sha256(f.read_bytes()).hexdigest()}" for f in path.iterdir()}
    return Input(repo=repo, revision="main", commit="0" * 40, path=path, digests=files)


def make_task(base: Path, adapted: Path, work: Path, *, spectra: Path | None = None, **method: Any) -> Task:
    recipe = parse_recipe({
        "base": {"repo": "org/base"}, "experts": [{"repo": "org/adapted"}], "target": {"repo": "org/out"},
        "method": {"name": "spear", **method},
    })  # fmt: skip
    inputs = (source(base, repo="org/base"), source(adapted, repo="org/adapted"))
    return Task(job_id="mrg_1", attempt=1, recipe=recipe, inputs=inputs, work_dir=work, spectra=spectra, device="cpu")


def run(task: Task) -> tuple[Scores, list[dict[str, Any]]]:
    stream = io.BytesIO()
    outcome = score(task, Reporter(stream))
    return outcome, [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("models")
    tensors = base_weights()
    return write(root / "base", tensors), write(root / "adapted", adapt(tensors))


def cache(messages: list[dict[str, Any]], path: Path) -> Path:
    records = [message["record"] for message in messages if message["kind"] == "spectrum"]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_every_projection_gets_a_row_that_is_plain_json(models: tuple[Path, Path], tmp_path: Path) -> None:
    outcome, _ = run(make_task(*models, tmp_path))
    assert [row["name"] for row in outcome.rows] == sorted(
        f"model.layers.{layer}.{part}.weight" for layer in range(LAYERS) for part in SHAPES
    )
    assert json.loads(json.dumps(outcome.rows, allow_nan=False)) == outcome.rows
    row = outcome.rows[-1]
    contract = {"name", "module_type", "layer", "shape", "snr", "swci", "svdr", "relative_change", "score", "t"}
    assert contract <= set(row)
    assert (row["module_type"], row["layer"], row["shape"]) == ("v", 3, [KV, HIDDEN])
    assert row["swci"] == pytest.approx((row["snr"] or 0) * (row["relative_change"] or 0))
    assert (outcome.computed, outcome.cached) == (2 * len(outcome.rows), 0)


def test_progress_counts_the_work_and_ends_at_its_total(models: tuple[Path, Path], tmp_path: Path) -> None:
    _, messages = run(make_task(*models, tmp_path))
    stage = messages[0]
    steps = [message["done"] for message in messages if message["kind"] == "step"]
    assert (stage["kind"], stage["name"], stage["unit"]) == ("stage", "scoring", "flop")
    assert steps == sorted(steps)
    assert len(steps) == LAYERS * len(SHAPES)
    assert steps[-1] == pytest.approx(stage["total"])


def test_a_second_job_on_the_pair_computes_no_spectrum(models: tuple[Path, Path], tmp_path: Path) -> None:
    first, messages = run(make_task(*models, tmp_path))
    known = cache(messages, tmp_path / "spectra.jsonl")
    again, said = run(make_task(*models, tmp_path, spectra=known, policy="aggressive"))
    assert (again.computed, again.cached) == (0, first.computed)
    assert again.rows == first.rows
    assert not [message for message in said if message["kind"] == "spectrum"]
    assert said[0]["total"] < 0.5 * messages[0]["total"]


def test_a_second_adapted_model_pays_its_own_half_only(models: tuple[Path, Path], tmp_path: Path) -> None:
    first, messages = run(make_task(*models, tmp_path))
    known = cache(messages, tmp_path / "spectra.jsonl")
    other = write(tmp_path / "other", adapt(base_weights(), seed=2))
    second, _ = run(make_task(models[0], other, tmp_path, spectra=known))
    assert (second.computed, second.cached) == (first.computed // 2, first.computed // 2)
    fresh, _ = run(make_task(models[0], other, tmp_path))
    assert second.rows == fresh.rows


def test_damaged_and_foreign_records_are_computed_again(models: tuple[Path, Path], tmp_path: Path) -> None:
    first, messages = run(make_task(*models, tmp_path))
    lines = cache(messages, tmp_path / "spectra.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    records[0]["algorithm"] = "older"
    records[1]["digest"] = "sha256:" + "0" * 64
    records[2]["data"] = "AAAA"
    lines = [*map(json.dumps, records), "not json", "[]", "{}"]
    (tmp_path / "spectra.jsonl").write_text("\n".join(lines))
    again, _ = run(make_task(*models, tmp_path, spectra=tmp_path / "spectra.jsonl"))
    assert again.computed == 3
    assert again.rows == first.rows


def test_a_cached_projection_belongs_to_the_config_that_cut_it_out(tmp_path: Path) -> None:
    name = "model.layers.0.self_attn.qkv_proj.weight"
    fused = {name: torch.randn(96, 48, generator=torch.Generator().manual_seed(3))}
    pair = write(tmp_path / "base", fused), write(tmp_path / "adapted", adapt(fused))
    outcomes, known = [], tmp_path / "spectra.jsonl"
    for heads, groups in ((4, 2), (6, 1)):  # 48 + 24 + 24 rows, then 72 + 12 + 12, of the same file
        config = {"num_attention_heads": heads, "num_key_value_heads": groups, "head_dim": 12, "hidden_size": 48}
        for path in pair:
            (path / "config.json").write_text(json.dumps({"model_type": "phi3", **config}))
        task = make_task(*pair, tmp_path, spectra=known if known.exists() else None)
        outcome, messages = run(task)
        outcomes.append(outcome)
        cache(messages, known)
    assert [[row["shape"] for row in outcome.rows] for outcome in outcomes] == [
        [[24, 48], [48, 48], [24, 48]], [[12, 48], [72, 48], [12, 48]],
    ]  # fmt: skip
    assert [(outcome.computed, outcome.cached) for outcome in outcomes] == [(6, 0), (6, 0)]
    digest = {record["digest"] for record in map(json.loads, known.read_text().splitlines())}
    assert len(digest) == 2


def test_identical_models_change_nothing(models: tuple[Path, Path], tmp_path: Path) -> None:
    task = make_task(models[0], models[0], tmp_path, policy="aggressive")
    outcome, _ = run(task)
    for row in outcome.rows:
        keys = ("relative_change", "swci", "svdr", "svdr_abs", "svdr_nuclear", "svdr_rank", "svdr_signed", "score")
        assert [row[key] for key in keys] == [0] * len(keys)  # type: ignore[literal-required]
    selection = select(task, outcome.rows)
    assert selection.decisions == {}
    assert "identical" in selection.warnings[0]


def test_scores_are_the_same_twice(models: tuple[Path, Path], tmp_path: Path) -> None:
    assert run(make_task(*models, tmp_path))[0].rows == run(make_task(*models, tmp_path))[0].rows


@pytest.mark.parametrize(("policy", "per_type"), [("conservative", 1), ("balanced", 1), ("aggressive", 2)])
def test_policies_take_their_share_of_each_module_type(
    models: tuple[Path, Path], tmp_path: Path, policy: str, per_type: int
) -> None:
    task = make_task(*models, tmp_path, policy=policy, t=0.3)
    selection = select(task, run(task)[0].rows)
    kinds = [row["module_type"] for row in selection.rows if row["selected"]]
    assert sorted(kinds) == sorted(["q", "k", "v", "o", "gate", "up", "down"] * per_type)
    assert set(selection.decisions.values()) == {0.3}
    assert selection.shares["model_tensors"] == 1 + LAYERS * (1 + len(SHAPES))
    assert 0 < selection.shares["embedding_share"] < 1


def test_the_embedding_is_scored_when_asked_for(models: tuple[Path, Path], tmp_path: Path) -> None:
    task = make_task(*models, tmp_path, embedding=True, head=True)
    selection = select(task, run(task)[0].rows)
    assert selection.decisions["model.embed_tokens.weight"] == 0.5


def test_included_norms_are_restored_without_scores(models: tuple[Path, Path], tmp_path: Path) -> None:
    task = make_task(*models, tmp_path, include=["*layernorm*"])
    selection = select(task, run(task)[0].rows)
    norms = [row for row in selection.rows if row["module_type"] == "norm"]
    assert len(norms) == LAYERS
    assert {(row["selected"], row["score"], row["reason"]) for row in norms} == {(True, None, "included")}


def test_freeze_and_restore_sets_come_from_the_recipe(models: tuple[Path, Path], tmp_path: Path) -> None:
    sets = [{"patterns": ["*.3.mlp.*"], "t": 0.75}]
    task = make_task(*models, tmp_path, freeze=["*.0.*"], restore=sets, fraction=0.01)
    decisions = select(task, run(task)[0].rows).decisions
    assert {t for name, t in decisions.items() if ".0." in name} == {0.0}
    assert "model.layers.0.input_layernorm.weight" in decisions
    assert [decisions[f"model.layers.3.mlp.{p}_proj.weight"] for p in ("gate", "up", "down")] == [0.75] * 3


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("side", ["base", "adapted"])
def test_a_tensor_that_is_not_finite_is_named(models: tuple[Path, Path], tmp_path: Path, bad: float, side: str) -> None:
    tensors = base_weights()
    tensors["model.layers.2.mlp.up_proj.weight"][5, 7] = bad
    broken = write(tmp_path / "broken", tensors)
    pair = (broken, models[1]) if side == "base" else (models[0], broken)
    with pytest.raises(SpearError, match="up_proj") as caught:
        run(make_task(*pair, tmp_path))
    assert caught.value.code == Code.NONFINITE_TENSOR
    expected = {"tensor": "model.layers.2.mlp.up_proj.weight", "repo": f"org/{side}", "file": "model.safetensors"}
    assert caught.value.names == expected


def test_nothing_to_score_is_told(models: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(SpearError) as caught:
        run(make_task(*models, tmp_path, modules=["*.attn.c_attn.*"]))
    assert caught.value.code == Code.NOTHING_TO_SCORE


@pytest.mark.parametrize(
    ("replacement", "code"), [(None, Code.TENSOR_MISSING), (torch.zeros(KV, HIDDEN + 1), Code.SHAPE_MISMATCH)]
)
def test_models_that_do_not_fit_are_refused(
    models: tuple[Path, Path], tmp_path: Path, replacement: Tensor | None, code: Code
) -> None:
    name = "model.layers.1.self_attn.k_proj.weight"
    tensors = {**base_weights(), name: replacement}
    other = write(tmp_path / "other", {key: value for key, value in tensors.items() if value is not None})
    with pytest.raises(SpearError) as caught:
        run(make_task(models[0], other, tmp_path))
    assert caught.value.code == code
    assert caught.value.names["tensor"] == name


def test_a_spectrum_without_noise_ranks_first_and_is_told(models: tuple[Path, Path], tmp_path: Path) -> None:
    name = "model.layers.2.self_attn.q_proj.weight"
    tensors = base_weights()
    tensors[name] = torch.ones(HIDDEN, HIDDEN, dtype=torch.bfloat16)
    pair = write(tmp_path / "base", tensors), write(tmp_path / "adapted", adapt(tensors))
    task = make_task(*pair, tmp_path, weights={"swci": 1, "svdr": 0})
    outcome, _ = run(task)
    row = next(row for row in outcome.rows if row["name"] == name)
    assert row["snr"] is None
    assert {"snr", "swci"} <= set(row["infinite"])
    assert row["score"] == 1
    assert name in outcome.warnings[0]
    assert name in select(task, outcome.rows).decisions
