"""A study on small real models: its cells are what merges write, and a killed one goes on where it was."""

import io
import json
from pathlib import Path

import pytest
import torch

from app.recipes import parse_study
from tests.fixtures.models import SENTENCES, make_checkpoint
from worker.pipeline import study as stage
from worker.pipeline.merge import merge
from worker.pipeline.meter import Meter
from worker.pipeline.study import run_study
from worker.pipeline.task import Input, Reporter, Source, Task

QUESTIONS = [
    {"question": "Revenue rose by", "choices": [" 12 %", " the lazy dog"], "answer": 0},
    {"question": "The quick brown", "choices": [" row", " fox", " quarter"], "answer": 1},
    {"question": "What is seven times", "choices": [" eight?", " the table"], "answer": 0},
    {"question": "A merge is a row in a", "choices": [" table", " dog", " fox"], "answer": 0},
]


class Told(Meter):
    """What the child says, heard here."""

    def __init__(self, *, die_after: int | None = None):
        super().__init__(Reporter(io.BytesIO()))
        self.steps: list[str] = []
        self._die_after = die_after

    def step(self, *, done, name, **data):
        super().step(done=done, name=name, **data)
        self.steps.append(name)
        if self._die_after is not None and sum(":" in one for one in self.steps) >= self._die_after:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("study")
    base = make_checkpoint(folder / "base", seed=1, layers=1, dtype=torch.float32)
    return [base, *(make_checkpoint(folder / f"e{i}", seed=i, like=base, dtype=torch.float32, delta=0.3)
                    for i in (2, 3, 4))]  # fmt: skip


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sets")
    for name, items in {
        "choices": QUESTIONS, "other": QUESTIONS[::-1], "text": [{"text": text} for text in SENTENCES],
    }.items():  # fmt: skip
        (folder / f"{name}.jsonl").write_text("\n".join(json.dumps(item) for item in items))
    (folder / "cal.jsonl").write_text(json.dumps({**QUESTIONS[0], "question": "It rose by"}))
    return folder


def file_task(name: str, kind: str = "multiple_choice", **more):
    return {"name": name, "kind": kind, "repo": "org/sets", "repo_type": "dataset", "path": f"{name}.jsonl", **more}


def body(**changes):
    return {
        "base": {"repo": "org/base"},
        "experts": [{"repo": f"org/e{i}", "domain": "finance"} for i in (2, 3, 4)],
        "methods": [
            {"method": {"name": "task_arithmetic"}, "grid": {"lambda": [0.3, 0.9]}},
            {"method": {"name": "dare_ties"}, "grid": {"density": [0.5], "seed": [0, 1]}},
            {"method": {"name": "wise_ft", "alpha": 0.5}},
        ],
        "evaluation": {
            "general": [file_task("text", "perplexity")],
            "domain": [file_task("choices", ability="finance"), file_task("other", ability="finance")],
            "calibration": {"domain": [file_task("cal")]},
        },
    } | changes


def make_task(work: Path, models, sets: Path, **changes) -> Task:
    work.mkdir(exist_ok=True)
    study = parse_study(body(**changes))
    inputs = tuple(
        Input(repo=f"org/{path.name}", revision="main", commit=f"{i}" * 40, path=path,
              digests={file.name: f"sha256:{path.name}{file.name}" for file in path.iterdir()})
        for i, path in enumerate(models)
    )  # fmt: skip
    source = Source(
        repo="org/sets", repo_type="dataset", revision="main", commit="c" * 40, path=sets,
        digests={file.name: f"git:{file.name}" for file in sets.iterdir()},
    )
    return Task(job_id="std_test", attempt=1, recipe=study, inputs=inputs, work_dir=work, sources=(source,),
                device="cpu")  # fmt: skip


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # making tasks ready changes it
    return tmp_path


def reported(task: Task) -> dict:
    return json.loads((task.work_dir / "report.json").read_text())


def test_every_cell_is_measured_as_its_merge_would_be(here, models, sets):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from worker.evaluation.language_model import LanguageModel
    from worker.evaluation.preparation import ready

    task = make_task(here / "work", models, sets)
    told = Told()
    summary = run_study(task, told)
    report = reported(task)
    cells = task.recipe.cells()
    assert summary["metrics"] == {"cells": len(cells), "experts": 3}
    assert [row["key"] for row in report["cells"]] == [cell.key for cell in cells]
    assert {cell.stage for cell in cells if cell.method == "wise_ft"} == {1}  # it takes one expert alone
    benches = ready(task.evaluation, sources=task.sources, data=here)
    for cell in (cells[0], cells[-1], next(cell for cell in cells if cell.stage == 2)):
        one = stage._cell_task(task, cell).model_copy(update={"work_dir": here / cell.key.replace(":", "_")})
        merge(one, None, Reporter(io.BytesIO()))
        model = AutoModelForCausalLM.from_pretrained(one.output, dtype=torch.float32).eval()
        asked = LanguageModel(model, AutoTokenizer.from_pretrained(one.output))
        row = next(row for row in report["cells"] if row["key"] == cell.key)
        for each in benches.held_out:
            sheet = each.bench.ask(asked)
            assert row["scores"][each.label] == (sheet.mean if sheet.kind == "score" else -sheet.mean)
    assert {"report.json", "exports.json", "sheets.json"} <= {path.name for path in task.work_dir.iterdir()}
    assert report["costs"]["core_seconds"]["sweeping"] >= 0


def test_a_killed_study_goes_on_with_the_next_cell_to_the_same_report(here, models, sets):
    whole = make_task(here / "whole", models, sets)
    run_study(whole, Told())
    task = make_task(here / "killed", models, sets)
    with pytest.raises(KeyboardInterrupt):
        run_study(task, Told(die_after=5))
    journal = task.work_dir / stage.JOURNAL
    journal.write_text(journal.read_text() + '\n{"cell": "half')  # the machine went down within a line
    told = Told()
    run_study(task, told)
    assert "5 merges measured before" in told.steps
    assert sum(":" in step for step in told.steps) == len(task.recipe.cells()) - 5
    keep = {name: part for name, part in reported(whole).items() if name != "costs"}
    assert {name: part for name, part in reported(task).items() if name != "costs"} == keep


def test_another_plan_starts_anew(here, models, sets):
    task = make_task(here / "work", models, sets, stages=[1])
    run_study(task, Told())
    told = Told()
    other = task.evaluation.model_dump(mode="json") | {"limit": 2}
    run_study(make_task(here / "work", models, sets, stages=[1], evaluation=other), told)
    assert not any("measured before" in step for step in told.steps)


def test_gain_against_the_base_and_a_study_without_choice(here, models, sets):
    evaluation = {"general": [file_task("text", "perplexity")]}
    methods = [{"method": {"name": "linear"}}]
    experts = [{"repo": f"org/e{i}"} for i in (2, 3)]
    task = make_task(
        here / "work", models[:3], sets, methods=methods, evaluation=evaluation, experts=experts, gain_reference="base"
    )
    run_study(task, Told())
    report = reported(task)
    assert report["main_kind"] == "loss"
    assert {row["chosen_on"] for row in report["outcomes"]} == {"nothing"}
    assert report["answers"] == {}
    assert [len(row["experts"]) for row in report["outcomes"]] == [1, 1, 2]  # the only pair is all of them
    base = report["models"][0]["scores"]["text"]["value"]
    for row in report["cells"]:
        assert row["gain"]["text"] == pytest.approx(row["scores"]["text"] - base)
    assert report["correlations"][0]["rank"] == {"rho": None, "p": None, "n": 1}
