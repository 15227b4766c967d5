"""report.json, the manifest and the figure: from one task and its scores to the published evidence."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from PIL import Image

from app.recipes import parse_recipe
from worker.pipeline.task import Input, Task
from worker.report.figures import draw_scores
from worker.report.publishable import write
from worker.report.report import build_report, lasting, plain
from worker.report.schema import json_schema

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
    for broken in ({**report, "schema_version": 2}, {**report, "more": 1}, less):
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
def test_the_figure_is_small_and_the_same_each_time(tmp_path: Path, layers: int) -> None:
    report = build_report(make_task(tmp_path), **make_parts(layers=layers))
    paths = [tmp_path / "one.png", tmp_path / "figures" / "two.png"]
    assert [draw_scores(report, path=path) for path in paths] == [True, True]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert paths[0].stat().st_size < 150_000
    with Image.open(paths[0]) as picture:
        assert picture.info.keys() <= {"dpi"}
        assert picture.width >= 800


def test_the_figure_frames_the_restored_cells(tmp_path: Path) -> None:
    def red(*, restored: bool) -> int:
        parts = make_parts()
        parts["rows"] = [{**row, "selected": restored} for row in parts["rows"]]
        draw_scores(build_report(make_task(tmp_path), **parts), path=tmp_path / "it.png")
        pixels = np.asarray(Image.open(tmp_path / "it.png").convert("RGB")).astype(int)
        return int(((pixels[..., 0] > 180) & (pixels[..., 1] < 90)).sum())

    assert red(restored=True) > 20 * red(restored=False)  # what is left is the legend's


def test_missing_scores_leave_cells_empty(tmp_path: Path) -> None:
    parts = make_parts()
    parts["rows"] = [{**row, "score": None, "relative_change": None} for row in parts["rows"][:-3]]
    report = build_report(make_task(tmp_path), **parts)
    assert report["heatmap"]["score"][4] == [None, None, None, None]
    assert report["heatmap"]["restored"][4] == [0.0, 0.0, 1.0, 0.0]
    assert draw_scores(report, path=tmp_path / "it.png")
