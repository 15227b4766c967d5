"""report.json, the manifest and the figure: from one task and its scores to the published evidence."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from PIL import Image

from app.recipes import parse_recipe
from worker.pipeline.task import Input, Task
from worker.report.figures import SCORES, draw
from worker.report.publishable import write
from worker.report.report import build_report, lasting, plain
from worker.report.schema import json_schema
from worker.report.spectra import every
from worker.scores.curve import Curve, curve

SHAPES = {"q": (16, 16), "k": (4, 16), "v": (4, 16), "o": (16, 16), "gate": (32, 16), "up": (32, 16), "down": (16, 32)}


def make_task(folder: Path, *, attempt: int = 1, method: dict[str, Any] | None = None, **changes: Any) -> Task:
    recipe = {
        "base": {"repo": "org/base"},
        "experts": [{"repo": "org/adapted", "revision": "v1"}],
        "method": method or {"name": "spear", "policy": "aggressive"},
        "target": {"repo": "org/restored"},
        **changes.pop("recipe", {}),
    }
    inputs = [
        {"repo": "org/base", "revision": "a" * 40, "commit": "a" * 40, "license": "apache-2.0"},
        {"repo": "org/adapted", "revision": "b" * 40, "commit": "b" * 40, "license": "apache-2.0"},
    ]
    for given, license_ in zip(inputs, changes.pop("licenses", ()), strict=False):
        given["license"] = license_
    work = folder / f"attempt{attempt}"
    (work / "output").mkdir(parents=True, exist_ok=True)
    (work / "output" / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    (work / "output" / "model.safetensors").write_bytes(b"weights")
    return Task(
        job_id="mrg_1",
        attempt=attempt,
        recipe=parse_recipe(recipe),
        inputs=tuple(Input(path=folder, digests={"config.json": "git:" + "c" * 40}, **given) for given in inputs),
        work_dir=work,
        **changes,
    )


def make_rows(*, layers: int = 4) -> list[dict[str, Any]]:
    return [
        {
            "name": f"model.layers.{layer}.{module}_proj.weight", "module_type": module, "layer": layer, "shape": shape,
            "parameters": math.prod(shape), "snr": math.inf if layer == 0 else 1.5, "swci": 0.1 * layer,
            "svdr": math.nan if layer == 1 else 0.01, "relative_change": 0.02, "score": (layer + 1) / layers,
            "selected": layer >= layers // 2, "t": 0.5 if layer >= layers // 2 else None, "snr_spectrum": 2.0,
        }
        for layer in range(layers)
        for module, shape in SHAPES.items()
    ]  # fmt: skip


def make_curves(rows: list[dict[str, Any]], *, count: int = 300) -> dict[str, Curve]:
    base = torch.linspace(3, 2.001, count, dtype=torch.float64)
    one = curve(base, base * 0.99)
    return {row["name"]: one for row in rows}


def make_parts(*, layers: int = 4, seconds: float = 1.0) -> dict[str, Any]:
    return {
        "rows": make_rows(layers=layers),
        "selection": {"model_parameters": 20_000, "embedding_share": np.float32(0.25)},
        "merge": {"operations": {"slerp": 4, "lerp": 10, "copy_adapted": 20}, "lerp_fallbacks": 10, "bytes": 7,
                  "seconds": seconds},
        "verification": {"tensors": 34, "finite": True},
        "costs": {"stages": {"scoring": seconds}, "spectra_cached": 3, "device": "cpu"},
        "warnings": ["the tokenizers differ"],
    }  # fmt: skip


def publish(task: Task, **changes: Any) -> dict[str, Any]:
    parts = {**make_parts(), **changes}
    decisions = [{"name": row["name"], "t": row["t"]} for row in reversed(parts["rows"])]
    digests = {"model.safetensors": (7, hashlib.sha256(b"weights").hexdigest())}
    return write(task, decisions=decisions, digests=digests, **parts)


def test_the_report_is_valid_and_json_safe(tmp_path: Path) -> None:
    report = build_report(make_task(tmp_path, warnings=("gated base",)), **make_parts())
    text = json.dumps(report, allow_nan=False)
    jsonschema.Draft202012Validator.check_schema(json_schema())
    jsonschema.validate(json.loads(text), json_schema())
    assert report["scores"][0]["snr"] is None
    assert report["scores"][0]["snr_spectrum"] == 2.0
    assert report["warnings"] == ["gated base", "the tokenizers differ"]
    assert report["inputs"][1] == {
        "role": "expert", "repo": "org/adapted", "revision": "v1", "commit": "b" * 40, "license": "apache-2.0",
        "adapter": False,
    }  # fmt: skip


def test_the_schema_refuses_what_is_not_a_report(tmp_path: Path) -> None:
    report = build_report(make_task(tmp_path), **make_parts())
    less = {key: report[key] for key in report if key != "job"}
    for broken in ({**report, "schema_version": 1}, {**report, "more": 1}, less):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, json_schema())


def test_the_selection_is_counted_from_the_rows(tmp_path: Path) -> None:
    report = build_report(make_task(tmp_path), **make_parts())
    chosen = report["selection"]
    size = sum(math.prod(shape) for shape in SHAPES.values())
    assert (chosen["selected"], chosen["scored"]) == (14, 28)
    assert (chosen["parameters"], chosen["parameters_scored"]) == (2 * size, 4 * size)
    assert [module["module_type"] for module in chosen["modules"]] == list(SHAPES)
    assert chosen["modules"][1] == {
        "module_type": "k", "selected": 2, "scored": 4, "parameters": 128, "parameters_scored": 256, "share": 0.5,
    }  # fmt: skip
    assert "Restored 14 of 28 scored tensors (4.35 k parameters, 21.8% of the model)" in report["verdict"]
    assert "10 of 14 restored tensors" in report["merge"]["statement"]
    assert report["verdict"].count("the other tensors are the adapted model's") == 1


def test_the_verdict_counts_what_a_search_moved_beside_the_scored_tensors(tmp_path: Path) -> None:
    parts = make_parts()
    kinds = {kind: {"tensors": 2} for kind in SHAPES} | {"norm": {"tensors": 5}, "embedding": {"tensors": 1}}
    parts["selection"] = {"parameters": 9000, "model_parameters": 9000, "modules": kinds}
    said = build_report(make_task(tmp_path), **parts)["verdict"]
    assert "Restored 14 of 28 scored tensors and 6 others (9 k parameters, 100.0% of the model)" in said
    assert "the other tensors" not in said


def test_the_heatmap_has_modules_as_rows_and_layers_as_columns(tmp_path: Path) -> None:
    parts = make_parts()
    parts["rows"].append({"name": "model.embed_tokens.weight", "module_type": "embedding", "score": 1.0})
    parts["rows"].append({**parts["rows"][0], "name": "a second expert's", "score": 0.75, "selected": True})
    heatmap = build_report(make_task(tmp_path), **parts)["heatmap"]
    assert heatmap["modules"] == list(SHAPES)
    assert heatmap["layers"] == [0, 1, 2, 3]
    assert heatmap["score"][0] == [0.5, 0.5, 0.75, 1.0]  # the first cell is the mean of two tensors
    assert heatmap["restored"][0] == [0.5, 0.0, 1.0, 1.0]
    assert [tensor["module_type"] for tensor in heatmap["outside"]] == ["embedding"]


def test_a_method_without_scores_is_reported_too(tmp_path: Path) -> None:
    task = make_task(tmp_path)
    summary = publish(task, rows=[], selection={}, merge={"operations": {"linear": 3}})
    report = json.loads((task.output / "report.json").read_text())
    jsonschema.validate(report, json_schema())
    assert report["verdict"].startswith("Merged org/adapted with org/base by spear.")
    assert (summary["selected"], summary["scored"]) == (0, 0)
    assert not (task.output / "figures").exists()
    assert "figures/" not in (task.output / "README.md").read_text()


def test_plain_knows_what_the_numerics_hand_over() -> None:
    given = {"a": np.float64("nan"), "b": (np.int64(3), Path("x")), 4: {"z", "y"}, "c": -math.inf, "d": True}
    assert plain(given) == {"a": None, "b": [3, "x"], "4": ["y", "z"], "c": None, "d": True}


def test_the_manifest_names_every_other_file_with_its_digest(tmp_path: Path) -> None:
    task = make_task(tmp_path)
    summary = publish(task)
    content = (task.output / "merge_manifest.json").read_bytes()
    manifest = json.loads(content)
    files = {p.relative_to(task.output).as_posix(): p for p in task.output.rglob("*") if p.is_file()}
    assert set(manifest["outputs"]) == set(files) - {"merge_manifest.json"}
    assert {"README.md", "report.json", "figures/scores.png", "model.safetensors"} < set(files)
    for name, said in manifest["outputs"].items():
        data = files[name].read_bytes()
        assert said == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert summary["manifest_sha256"] == hashlib.sha256(content).hexdigest()
    assert manifest["job_id"] == "mrg_1"
    assert [source["commit"] for source in manifest["inputs"]] == ["a" * 40, "b" * 40]
    assert manifest["inputs"][0]["files"] == {"config.json": "git:" + "c" * 40}
    assert parse_recipe(manifest["recipe"]) == task.recipe


def test_a_second_run_of_the_job_ends_in_the_same_bytes(tmp_path: Path) -> None:
    first, second = make_task(tmp_path, attempt=1), make_task(tmp_path, attempt=2)
    again = {**make_parts(seconds=9.0), "costs": {"stages": {"scoring": 0.1}, "spectra_cached": 28, "device": "cpu"}}
    summaries = [publish(first), publish(second, **again)]
    assert summaries[0] == summaries[1]
    for name in ("merge_manifest.json", "report.json", "README.md", "figures/scores.png"):
        assert (first.output / name).read_bytes() == (second.output / name).read_bytes()


def test_the_costs_stay_with_the_job_and_out_of_what_is_published(tmp_path: Path) -> None:
    task = make_task(tmp_path, attempt=2)
    publish(task, **make_parts(seconds=9.0))
    whole = json.loads((task.work_dir / "report.json").read_text())
    assert (whole["costs"]["stages"], whole["costs"]["merge"]) == ({"scoring": 9.0}, {"seconds": 9.0})
    assert whole["costs"]["attempt"] == 2
    assert json.loads((task.output / "report.json").read_text()) == lasting(whole)
    assert lasting(whole)["costs"] is None


@pytest.mark.parametrize("layers", [1, 2, 32, 80])
def test_the_figures_are_small_and_the_same_each_time(tmp_path: Path, layers: int) -> None:
    rows = make_rows(layers=layers)
    parts = {**make_parts(), "rows": rows, "curves": make_curves(rows)}
    task = make_task(tmp_path, method={"name": "spear", "show": ["model.layers.0.*"]})
    report = build_report(task, **parts)
    first, second = (draw(report, folder=tmp_path / name) for name in ("one", "two"))
    assert list(first) == [f"figures/{name}.png" for name in ("scores", "components", "change", "spectra")]
    assert first == second
    for name in first:
        one, two = (tmp_path / folder / name for folder in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()
        assert one.stat().st_size < 200_000
        with Image.open(one) as picture:
            assert picture.info.keys() <= {"dpi"}
            assert picture.width >= 800


def test_the_figure_frames_the_restored_cells(tmp_path: Path) -> None:
    def red(*, restored: bool) -> int:
        parts = make_parts()
        parts["rows"] = [{**row, "selected": restored} for row in parts["rows"]]
        draw(build_report(make_task(tmp_path), **parts), folder=tmp_path)
        pixels = np.asarray(Image.open(tmp_path / SCORES).convert("RGB")).astype(int)
        return int(((pixels[..., 0] > 180) & (pixels[..., 1] < 90)).sum())

    assert red(restored=True) > 20 * red(restored=False)  # what is left is the legend's


def test_missing_scores_leave_cells_empty(tmp_path: Path) -> None:
    parts = make_parts()
    parts["rows"] = [{**row, "score": None, "relative_change": None} for row in parts["rows"][:-3]]
    report = build_report(make_task(tmp_path), **parts)
    assert report["heatmap"]["score"][4] == [None, None, None, None]
    assert report["heatmap"]["restored"][4] == [0.0, 0.0, 1.0, 0.0]
    assert SCORES in draw(report, folder=tmp_path)


def test_every_score_has_a_grid_of_its_own(tmp_path: Path) -> None:
    heatmap = build_report(make_task(tmp_path), **make_parts())["heatmap"]
    assert heatmap["snr"][0] == [None, 1.5, 1.5, 1.5]  # infinite in the first layer
    assert heatmap["swci"][0] == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert heatmap["svdr"][0] == [0.01, None, 0.01, 0.01]


def test_the_distribution_counts_every_scored_tensor_once(tmp_path: Path) -> None:
    parts = make_parts()
    for i, row in enumerate(parts["rows"]):
        row["relative_change"] = (0.0, math.inf, 1e-4 * 1.5**i)[min(i, 2)]
    data = build_report(make_task(tmp_path), **parts)["distribution"]
    assert (data["unchanged"], data["endless"]) == (1, 1)
    assert sum(data["restored"]) == 14
    assert sum(data["kept"]) == 28 - 14 - 2
    assert len(data["edges"]) == len(data["kept"]) + 1
    assert data["edges"] == sorted(data["edges"])
    assert data["edges"][0] <= 1e-4 * 1.5**2
    assert data["edges"][-1] >= 1e-4 * 1.5**27


def test_models_that_do_not_differ_have_no_histogram(tmp_path: Path) -> None:
    parts = make_parts()
    parts["rows"] = [{**row, "relative_change": 0.0} for row in parts["rows"]]
    report = build_report(make_task(tmp_path), **parts)
    assert (report["distribution"]["edges"], report["distribution"]["unchanged"]) == ([], 28)
    assert "figures/change.png" not in draw(report, folder=tmp_path)


def test_spectra_are_shown_of_the_tensors_that_are_named(tmp_path: Path) -> None:
    parts = make_parts()
    curves = make_curves(parts["rows"], count=1000)
    task = make_task(tmp_path, method={"name": "spear", "show": ["*.layers.3.q_proj.weight", "nothing"]})
    name = "model.layers.3.q_proj.weight"
    report = build_report(task, **parts, curves=curves, merged={name: [2.0 - i / 1000 for i in range(1000)]})
    (one,) = report["spectra"]
    assert (one["name"], one["count"], one["selected"]) == (name, 1000, True)
    assert (one["ranks"][0], one["ranks"][-1]) == (1, 1000)
    assert len(one["ranks"]) == len(one["base"]) == len(one["adapted"]) == len(one["merged"]) <= 256
    assert (one["base"][0], one["base"][-1]) == (3.0, 2.001)
    assert one["merged"][0] == 2.0


def test_the_spectra_of_all_tensors_are_bounded() -> None:
    rows = [{"name": f"{i}", "shape": (700, 800), "noise_edge": 1.23456, "precision": "exact"} for i in range(9000)]
    made = every(rows, curves=make_curves(rows, count=700))
    numbers = sum(len(one["base"]) + len(one["adapted"]) for one in made["tensors"].values())
    assert numbers <= 2**19
    assert made["ranks"].keys() == {"700"}
    assert len(made["ranks"]["700"]) == len(made["tensors"]["0"]["base"])
    assert made["tensors"]["0"]["edge"] == 1.235
    few = every(rows[:3], curves=make_curves(rows[:3], count=40))
    assert few["ranks"]["40"] == tuple(range(1, 41))
