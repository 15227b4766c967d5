"""What a scoring pays, as its report tells: a second adapted model its own half, a second policy nothing."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_score_stage import adapt, base_weights, cache, make_task, write

from worker.pipeline.run import run
from worker.pipeline.task import Reporter, Task
from worker.spectra import from_record, to_record

COUNTS = ("base_computed", "base_cached", "adapted_computed", "adapted_cached")


def report_of(task: Task) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The report of a whole run, and all that was said."""
    stream = io.BytesIO()
    task.work_dir.mkdir(exist_ok=True)
    run(task, Reporter(stream))
    said = [json.loads(line) for line in stream.getvalue().splitlines()]
    return json.loads((task.work_dir / "report.json").read_text()), said


def counts(report: dict[str, Any]) -> tuple[int, ...]:
    return tuple(report["costs"]["spectra_by_model"][name] for name in COUNTS)


def mixed_weights(*, seed: int = 5) -> dict[str, torch.Tensor]:
    """Matrices that want different precisions: large enough to try a cheap one, some with one huge direction."""
    generator, size = torch.Generator().manual_seed(seed), 320
    tensors = {}
    for layer, strong in enumerate((0.0, 1e4, 0.0)):
        left, right = torch.randn(size, 1, generator=generator), torch.randn(1, size, generator=generator)
        matrix = 0.02 * (torch.randn(size, size, generator=generator) + strong * left @ right)
        tensors[f"model.layers.{layer}.self_attn.q_proj.weight"] = matrix
    return tensors


@pytest.fixture(scope="module", params=["plain", "mixed"])
def models(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A base and two adapted models, the first of which drops nowhere in one tensor of the mixed kind."""
    root = tmp_path_factory.mktemp(request.param)
    base = base_weights() if request.param == "plain" else mixed_weights()
    one, two = adapt(base, seed=1, change=0.01), adapt(base, seed=2, change=0.01)
    if request.param == "mixed":
        grown = next(iter(base))
        one[grown] = 1.02 * base[grown]
    return [write(root / f"model{i}", tensors) for i, tensors in enumerate((base, one, two))]


def test_a_second_model_pays_its_half_and_a_second_policy_nothing(models: list[Path], tmp_path: Path) -> None:
    base, one, two = models
    first, said = report_of(make_task(base, one, tmp_path / "first"))
    count = len(first["scores"])
    assert counts(first) == (count, 0, count, 0)
    known = cache(said, tmp_path / "spectra.jsonl")
    second, more = report_of(make_task(base, two, tmp_path / "second", spectra=known))
    assert counts(second) == (0, count, count, 0)
    assert (second["costs"]["spectra_computed"], second["costs"]["spectra_cached"]) == (count, count)
    known = cache([*said, *more], tmp_path / "spectra.jsonl")
    for number, policy in enumerate(("conservative", "aggressive")):
        again, nothing = report_of(
            make_task(base, two, tmp_path / f"again{number}", spectra=known, policy=policy, svdr="rank")
        )
        assert counts(again) == (0, count, 0, count)
        assert not [message for message in nothing if message["kind"] == "spectrum"]


def test_what_the_cache_learns_in_between_changes_no_score(models: list[Path], tmp_path: Path) -> None:
    """A job that runs again publishes the same numbers, whatever other jobs have added to the cache meanwhile."""
    base, one, _ = models
    first, said = report_of(make_task(base, one, tmp_path / "first"))
    records = [message["record"] for message in said if message["kind"] == "spectrum"]
    doubles = {(record["digest"], record["tensor"]) for record in records if record["precision"] == "exact"}
    better = []
    for record in records:
        if (record["digest"], record["tensor"]) not in doubles:
            key, values = from_record(record)
            known = to_record(replace(key, precision="exact"), values * (1 + 1e-6))  # an fp64 one differs a little
            better.append({"kind": "spectrum", "record": known})
    assert better or len(doubles) == len(records)
    for name, messages in (("double", better), ("both", [*said, *better])):
        path = cache(messages, tmp_path / f"{name}.jsonl")
        again, _ = report_of(make_task(base, one, tmp_path / name, spectra=path))
        assert again["scores"] == first["scores"]


def test_the_costs_tell_core_seconds_by_stage(models: list[Path], tmp_path: Path) -> None:
    report, _ = report_of(make_task(models[0], models[1], tmp_path / "work"))
    costs = report["costs"]
    assert costs["core_seconds"].keys() == {"starting", "scoring", "selecting", "merging", "verifying"}
    assert sum(costs["core_seconds"].values()) == pytest.approx(costs["cpu_seconds"], abs=0.1)
    assert costs["core_seconds"]["scoring"] >= 0
    assert costs["peak_rss_bytes"] > 0
