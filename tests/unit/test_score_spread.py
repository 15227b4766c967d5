"""Scoring on several processes, and by the fast estimate."""

import io
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import spearmanr
from test_score_stage import adapt, base_weights, cache, make_task, run, write

from app.errors import Code, SpearError
from app.recipes import parse_recipe
from worker.pipeline.meter import Meter
from worker.pipeline.run import _costs
from worker.pipeline.spread import spread
from worker.pipeline.task import Reporter
from worker.processor import arithmetic

WIDTH = 256


@pytest.fixture(autouse=True)
def _estimate_small_ones_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Estimates of matrices of this size are as good as any for a test, and much sooner there."""
    monkeypatch.setattr("worker.pipeline.pair.SMALLEST", WIDTH)


@pytest.fixture
def _believe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups of a few small tensors are never believed: here the estimate itself is looked at."""
    monkeypatch.setattr("worker.pipeline.score.LEAST_AGREEMENT", -1.0)
    monkeypatch.setattr("worker.pipeline.score.LEAST_OF_FIRST", -1.0)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("models")
    return write(root / "base", base_weights()), write(root / "adapted", adapt(base_weights()))


@pytest.fixture(scope="module")
def wide_models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Query and up projections of four layers, large enough for an estimate; the last layer hardly changed."""
    root, generator = tmp_path_factory.mktemp("wide"), torch.Generator().manual_seed(0)
    base, other = {}, {}
    for layer, size in enumerate((0.08, 0.05, 0.03)):
        for part, shape in (("self_attn.q_proj", (WIDTH, WIDTH)), ("mlp.up_proj", (WIDTH + 64, WIDTH))):
            name = f"model.layers.{layer}.{part}.weight"
            plain = 0.02 * torch.randn(shape, generator=generator)
            noise = torch.randn(shape, generator=generator)
            base[name] = plain.bfloat16()
            other[name] = (0.99 * plain + size * plain.norm() / noise.norm() * noise).bfloat16()
    return write(root / "base", base), write(root / "adapted", other)


def threaded(task: Any, threads: int) -> Any:
    return task.model_copy(update={"threads": threads})


def test_two_processes_give_the_rows_of_one(models: tuple[Path, Path], tmp_path: Path) -> None:
    task = make_task(*models, tmp_path)
    one, said_one = run(task)
    two, said_two = run(threaded(task, 2))
    assert two.rows == one.rows
    assert (two.computed, two.cached) == (one.computed, one.cached)
    steps = [message["done"] for message in said_two if message["kind"] == "step"]
    assert steps == sorted(steps)
    assert steps[-1] == pytest.approx(said_two[0]["total"])
    records = [
        sorted((m["record"]["tensor"], m["record"]["digest"], m["record"]["data"]) for m in said if "record" in m)
        for said in (said_one, said_two)
    ]
    assert records[0] == records[1]


def test_an_expected_failure_in_a_process_is_that_failure(models: tuple[Path, Path], tmp_path: Path) -> None:
    tensors = base_weights()
    tensors["model.layers.2.mlp.up_proj.weight"][5, 7] = float("nan")
    broken = write(tmp_path / "broken", tensors)
    with pytest.raises(SpearError, match="up_proj") as caught:
        run(threaded(make_task(models[0], broken, tmp_path), 2))
    assert caught.value.code == Code.NONFINITE_TENSOR
    assert caught.value.names["tensor"] == "model.layers.2.mlp.up_proj.weight"
    assert caught.value.names["repo"] == "org/adapted"


def test_results_come_from_other_processes_with_one_thread_which_are_gone_afterwards() -> None:
    told = list(spread(lambda item: (os.getpid(), torch.get_num_threads(), item), range(6), processes=2))
    assert sorted(item for _, _, item in told) == list(range(6))
    pids = {pid for pid, _, _ in told}
    assert os.getpid() not in pids
    assert {threads for _, threads, _ in told} == {1}
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_one_process_needs_no_other() -> None:
    assert list(spread(lambda item: (os.getpid(), item), [1, 2], processes=1)) == [(os.getpid(), 1), (os.getpid(), 2)]


def test_neither_threads_nor_the_cache_show_in_a_digit(wide_models: tuple[Path, Path], tmp_path: Path) -> None:
    """One matrix is scored in this very process, whose threads would round sums differently."""
    alone = make_task(*wide_models, tmp_path, modules=["model.layers.0.mlp.up_proj.weight"])
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        several, _ = run(threaded(alone, 2))
        assert torch.get_num_threads() == 2
        torch.set_num_threads(1)
        one, said = run(alone)
    finally:
        torch.set_num_threads(before)
    again, _ = run(alone.model_copy(update={"spectra": cache(said, tmp_path / "spectra.jsonl")}))
    assert (again.computed, again.cached) == (0, 2)
    assert several.rows == one.rows == again.rows
    assert several.curves == one.curves == again.curves


def test_spectra_of_other_kernels_are_not_used(wide_models: tuple[Path, Path], tmp_path: Path) -> None:
    task = make_task(*wide_models, tmp_path, modules=["model.layers.0.mlp.up_proj.weight"])
    first, said = run(task)
    for message in said:
        if message["kind"] == "spectrum":
            assert message["record"]["device_class"] == arithmetic("cpu")
            message["record"]["device_class"] = "cpu-00000000"
    known = cache(said, tmp_path / "spectra.jsonl")
    again, _ = run(task.model_copy(update={"spectra": known}))
    assert (again.computed, again.cached) == (2, 0)
    assert again.rows == first.rows


@pytest.mark.usefixtures("_believe")
def test_fast_rows_are_estimates_that_rank_alike_and_are_cached(wide_models: tuple[Path, Path], tmp_path: Path) -> None:
    exact, _ = run(make_task(*wide_models, tmp_path))
    fast, messages = run(make_task(*wide_models, tmp_path, precision="fast"))
    assert {row["precision"] for row in exact.rows} == {"exact"}
    assert {row["precision"] for row in fast.rows} == {"fast"}
    by_drop = [sorted(each.rows, key=lambda row: (row["module_type"], row["svdr"])) for each in (exact, fast)]
    assert [row["name"] for row in by_drop[0]] == [row["name"] for row in by_drop[1]]
    assert {row["effective_rank"] for row in fast.rows} == {None}
    known = cache(messages, tmp_path / "spectra.jsonl")
    again, _ = run(make_task(*wide_models, tmp_path, precision="fast", spectra=known))
    assert (again.computed, again.cached) == (0, fast.computed)
    assert again.rows == fast.rows
    unaided, _ = run(make_task(*wide_models, tmp_path, spectra=known))
    assert unaided.rows == exact.rows  # an estimate never stands in for an exact spectrum
    assert unaided.cached == 0


@pytest.mark.usefixtures("_believe")
def test_the_estimate_is_compared_with_exact_spectra_that_the_cache_knows(
    wide_models: tuple[Path, Path], tmp_path: Path
) -> None:
    exact, messages = run(make_task(*wide_models, tmp_path))
    known = cache(messages, tmp_path / "spectra.jsonl")
    fast, _ = run(make_task(*wide_models, tmp_path, precision="fast", spectra=known))
    assert fast.agreement is not None
    correlation, count, _ = fast.agreement
    scores = [[row["score"] for row in each.rows] for each in (exact, fast)]
    assert count == len(exact.rows)
    assert correlation == pytest.approx(spearmanr(*scores).statistic)
    assert run(make_task(*wide_models, tmp_path, precision="fast"))[0].agreement is None
    assert exact.agreement is None


@pytest.mark.usefixtures("_believe")
def test_without_a_cache_a_few_are_scored_exactly_for_the_comparison_and_the_costs_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.pipeline.agreement.SAMPLED", 0.9)
    generator, base, other = torch.Generator().manual_seed(5), {}, {}
    for layer in range(7):
        plain = 0.02 * torch.randn(WIDTH, WIDTH, generator=generator)
        name = f"model.layers.{layer}.self_attn.q_proj.weight"
        base[name], other[name] = plain.bfloat16(), ((0.99 - 0.01 * layer) * plain).bfloat16()
    pair = write(tmp_path / "base", base), write(tmp_path / "adapted", other)
    task = make_task(*pair, tmp_path, precision="fast", weights={"svdr": 1, "swci": 0})
    fast, messages = run(task)
    assert fast.agreement == (1.0, 5, "5 of type q, spread by score, scored exactly for the comparison")
    assert {row["precision"] for row in fast.rows} == {"fast"}
    assert fast.computed == 2 * 7 + 2 * 5
    assert sum(m["kind"] == "spectrum" and m["record"]["precision"] in {"exact", "single"} for m in messages) == 10
    assert _costs(task, Meter(Reporter(io.BytesIO())), scores=fast)["fast_agreement"]["tensors"] == 5
    monkeypatch.setattr("worker.pipeline.agreement.SAMPLED", 0.5)
    assert run(task)[0].agreement is None


def test_small_matrices_are_never_estimated(models: tuple[Path, Path], tmp_path: Path) -> None:
    assert run(make_task(*models, tmp_path, precision="fast"))[0].rows == run(make_task(*models, tmp_path))[0].rows


def population(root: Path, *, count: int, close: bool) -> tuple[Path, Path]:
    """Query projections whose strength and change differ from layer to layer by much or by next to nothing."""
    root.mkdir(exist_ok=True)
    generator, base, other = torch.Generator().manual_seed(4), {}, {}
    for layer in range(count):
        step = 0.01 * layer if close else 1.0 * layer
        name = f"model.layers.{layer}.self_attn.q_proj.weight"
        left, right = (torch.randn(WIDTH, 6, generator=generator) for _ in range(2))
        plain = 0.02 * torch.randn(WIDTH, WIDTH, generator=generator) + 0.008 * 1.25**step * left @ right.T
        noise = torch.randn(WIDTH, WIDTH, generator=generator)
        shrunk = (1 - 0.004 * 1.5**step) * plain
        base[name] = plain.bfloat16()
        other[name] = (shrunk + 0.005 * 1.4**step * plain.norm() / noise.norm() * noise).bfloat16()
    return write(root / "base", base), write(root / "adapted", other)


def test_a_group_whose_order_is_beyond_doubt_stays_estimated_and_says_how_sure_it_is(tmp_path: Path) -> None:
    fast, _ = run(make_task(*population(tmp_path, count=8, close=False), tmp_path, precision="fast"))
    exact, _ = run(make_task(*population(tmp_path / "again", count=8, close=False), tmp_path))
    assert {row["precision"] for row in fast.rows} == {"fast"}
    assert all(row["svdr_error"] is None for row in fast.rows)
    assert all(0 < (row[key] or 0) < 0.5 for row in fast.rows for key in ("snr_doubt", "svdr_doubt"))
    assert spearmanr([row["score"] for row in fast.rows], [row["score"] for row in exact.rows]).statistic > 0.95


def test_a_small_group_of_close_neighbours_returns_to_exact(tmp_path: Path) -> None:
    pair = population(tmp_path, count=6, close=True)
    fast, messages = run(make_task(*pair, tmp_path, precision="fast"))
    exact, _ = run(make_task(*pair, tmp_path))
    assert fast.rows == exact.rows
    assert any("6 of 6 were scored exactly" in warning for warning in fast.warnings)
    steps = [message["done"] for message in messages if message["kind"] == "step"]
    assert steps[-1] == pytest.approx(messages[0]["total"])


def test_a_type_that_cannot_be_estimated_is_given_up_after_four_tensors(tmp_path: Path) -> None:
    pair = population(tmp_path, count=9, close=True)
    fast, messages = run(make_task(*pair, tmp_path, precision="fast"))
    records = [message["record"] for message in messages if message["kind"] == "spectrum"]
    splits = {record["tensor"] for record in records if record["precision"] == "split"}
    assert len(splits) == 4
    assert {row["precision"] for row in fast.rows} == {"exact"}


@pytest.mark.parametrize("enough", [True, False])
def test_the_base_is_computed_once_for_two_adapted_models_in_whatever_precision(
    tmp_path: Path, enough: bool
) -> None:
    generator, size = torch.Generator().manual_seed(6), 320  # wide enough for a try in single precision
    strong = 0.0 if enough else 1e4  # one huge direction hides the rest from single precision
    name = "model.layers.0.self_attn.q_proj.weight"
    left, right = torch.randn(size, 1, generator=generator), torch.randn(1, size, generator=generator)
    base = {name: 0.02 * (torch.randn(size, size, generator=generator) + strong * left @ right)}
    others = [{name: base[name] + 0.001 * torch.randn(size, size, generator=generator)} for _ in range(2)]
    grown = [base, {name: 1.02 * base[name]}, *others]  # the spectrum of the second drops nowhere
    paths = [write(tmp_path / f"model{i}", tensors) for i, tensors in enumerate(grown)]
    first, messages = run(make_task(paths[0], paths[1], tmp_path))
    known = cache(messages, tmp_path / "spectra.jsonl")
    assert (first.computed, first.cached) == (2, 0)
    grades = {message["record"]["precision"] for message in messages if message["kind"] == "spectrum"}
    assert ("exact" in grades) is not enough
    for path in paths[2:]:
        second, _ = run(make_task(paths[0], path, tmp_path, spectra=known))
        assert (second.computed, second.cached) == (1, 1)


def test_fast_and_global_do_not_go_together() -> None:
    body = {
        "base": {"repo": "org/base"}, "experts": [{"repo": "org/adapted"}], "target": {"repo": "org/out"},
        "method": {"name": "spear", "precision": "fast", "ranking": "global"},
    }  # fmt: skip
    with pytest.raises(SpearError, match="module_type"):
        parse_recipe(body)
