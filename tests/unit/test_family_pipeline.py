"""Every family through the whole pipeline: scored, selected, merged, and the result loaded and run by transformers."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_module_parts import LAYERS, MIXTURES, MODELS, NO_GATE
from test_score_stage import make_task

from worker.pipeline.run import run
from worker.pipeline.task import Reporter, Task


def network_of(model: str, *, seed: int = 0) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(model, **MODELS[model]), dtype=torch.float32)


def adapted_of(network: Any) -> Any:
    """Every parameter moved by about a tenth of its norm, later ones more."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for position, parameter in enumerate(network.parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            scale = max(float(parameter.norm()), 0.1) / float(noise.norm())
            parameter.add_(0.1 * (1 + position / 50) * scale * noise)
    return network


def save_packed(network: Any, path: Path) -> None:
    """With the experts as the module holds them: one tensor for all of a layer."""
    path.mkdir()
    network.config.architectures = [type(network).__name__]
    network.config.save_pretrained(path)
    own = {name: tensor.clone().contiguous() for name, tensor in network.state_dict().items()}
    save_file(own, path / "model.safetensors", metadata={"format": "pt"})


def make_pair(model: str, folder: Path, *, packed: bool = False) -> tuple[Path, Path]:
    base, adapted = folder / "base", folder / "adapted"
    network = network_of(model)
    for path in (base, adapted):
        if packed:
            save_packed(network, path)
        else:
            network.save_pretrained(path)
        adapted_of(network)
    return base, adapted


def restore(task: Task) -> dict[str, Any]:
    task.work_dir.mkdir(exist_ok=True)
    run(task, Reporter(io.BytesIO()))
    report: dict[str, Any] = json.loads((task.work_dir / "report.json").read_text())
    return report


def weights(path: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in path.glob("*.safetensors") for name, tensor in load_file(file).items()}


def check_result(task: Task, report: dict[str, Any], *, base: Path, adapted: Path) -> None:
    """What was to be restored lies half way between the two, all else is the adapted model's, and it runs."""
    from transformers import AutoModelForCausalLM

    one, two, out = weights(base), weights(adapted), weights(task.output)
    restored = {row["tensor"] for row in report["scores"] if row["selected"]}
    assert out.keys() == two.keys()
    for name, tensor in out.items():
        if name in restored:
            torch.testing.assert_close(tensor, (one[name] + two[name]) / 2, rtol=2e-2, atol=1e-4)
            assert not torch.equal(tensor, two[name])
        else:
            assert torch.equal(tensor, two[name]), name
    loaded, told = AutoModelForCausalLM.from_pretrained(task.output, output_loading_info=True)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    with torch.no_grad():
        assert torch.isfinite(loaded(torch.arange(1, 9)[None]).logits).all()


@pytest.mark.parametrize("model", MODELS)
def test_a_family_is_scored_restored_and_runs(model: str, tmp_path: Path) -> None:
    base, adapted = make_pair(model, tmp_path)
    task = make_task(base, adapted, tmp_path / "work", show=["*"])
    report = restore(task)
    types = {module["module_type"]: module for module in report["selection"]["modules"]}
    assert set(types) == {"q", "k", "v", "o", "up", "down"} | (set() if model in NO_GATE else {"gate"})
    assert all(module["selected"] for module in types.values())
    assert report["heatmap"]["layers"] == list(range(LAYERS))
    assert all(row["layer"] is not None for row in report["scores"])
    assert 1 <= len(report["spectra"]) <= 12
    assert any(one["merged"] for one in report["spectra"])
    check_result(task, report, base=base, adapted=adapted)


@pytest.mark.parametrize("model", MIXTURES)
def test_packed_experts_are_scored_one_by_one_and_restored_together(model: str, tmp_path: Path) -> None:
    base, adapted = make_pair(model, tmp_path, packed=True)
    task = make_task(base, adapted, tmp_path / "work", modules=["gate", "up", "down"])
    report = restore(task)
    experts = [row for row in report["scores"] if row["expert"] is not None]
    assert {row["tensor"].rpartition(".")[2] for row in experts} == {"gate_up_proj", "down_proj"}
    fates: dict[str, set[bool]] = {}
    for row in experts:
        fates.setdefault(row["unit"], set()).add(row["selected"])
    assert all(len(fate) == 1 for fate in fates.values())
    check_result(task, report, base=base, adapted=adapted)


@pytest.mark.parametrize("model", MIXTURES)
def test_both_ways_to_store_experts_give_the_same_scores(model: str, tmp_path: Path) -> None:
    reports = []
    for packed in (False, True):
        folder = tmp_path / str(packed)
        folder.mkdir()
        pair = make_pair(model, folder, packed=packed)
        reports.append(restore(make_task(*pair, folder / "work", modules=["gate", "up", "down"])))
    keys = ("module_type", "layer", "expert")
    found = [
        {tuple(row[key] for key in keys): (row["snr"], row["svdr"], row["relative_change"]) for row in report["scores"]}
        for report in reports
    ]
    assert found[0].keys() == found[1].keys()
    for key, scores in found[0].items():
        assert found[1][key] == pytest.approx(scores, rel=1e-6), key
