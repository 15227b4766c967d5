"""A study through the running service: its tables, its exports, what it publishes; a kill and a cancellation."""

import csv
import io
import json
import time

import pytest
import torch

from app.cli import app as spear
from benchmarks.study.check import differences
from tests.fixtures.models import SENTENCES, make_checkpoint

QUESTIONS = [
    {"question": "Revenue rose by", "choices": [" 12 %", " the lazy dog"], "answer": 0},
    {"question": "The quick brown", "choices": [" row", " fox", " quarter"], "answer": 1},
    {"question": "What is seven times", "choices": [" eight?", " the table"], "answer": 0},
]


@pytest.fixture(scope="module")
def repos(service_server, tmp_path_factory) -> list[str]:
    """A base, two experts, and a data set of task files."""
    folder = tmp_path_factory.mktemp("study")
    base = make_checkpoint(folder / "base", seed=71, layers=1, dtype=torch.float32)
    others = [make_checkpoint(folder / f"e{seed}", seed=seed, like=base, dtype=torch.float32, delta=0.3)
              for seed in (72, 73)]  # fmt: skip
    api = service_server.hub.api(service_server.token)
    sets = f"{service_server.user}/study-sets"
    api.create_repo(sets, repo_type="dataset", private=True)
    files = {
        "choices": QUESTIONS, "text": [{"text": text} for text in SENTENCES],
        "calibration": [{**item, "question": item["question"] + " now"} for item in QUESTIONS],
    }  # fmt: skip
    for name, items in files.items():
        data = "\n".join(map(json.dumps, items)).encode()
        api.upload_file(path_or_fileobj=data, path_in_repo=f"{name}.jsonl", repo_id=sets, repo_type="dataset")
    return [*(service_server.push(f"study-{path.name}", path) for path in (base, *others)), sets]


def study(repos, **changes) -> dict:
    base, one, two, sets = repos

    def task(name: str, kind: str = "multiple_choice", **more):
        return {"name": name, "kind": kind, "repo": sets, "path": f"{name}.jsonl", **more}

    return {
        "base": {"repo": base}, "experts": [{"repo": one, "domain": "finance"}, {"repo": two}],
        "methods": [
            {"method": {"name": "task_arithmetic"}, "grid": {"lambda": [0.2, 0.5, 0.9]}},
            {"method": {"name": "dare_ties"}, "grid": {"density": [0.5], "lambda": [0.5, 1.0], "seed": [0, 1]}},
        ],
        "evaluation": {
            "general": [task("text", "perplexity")], "domain": [task("choices", ability="finance")],
            "calibration": {"domain": [task("calibration")]},
        },
        "labels": {"paper": "2511.02451"},
    } | changes


@pytest.fixture
def command(service, monkeypatch):
    from typer.testing import CliRunner

    monkeypatch.setenv("SPEAR_API_URL", service.url)
    monkeypatch.setenv("SPEAR_API_KEY", service.key)
    return lambda *words: CliRunner().invoke(spear, list(words))


@pytest.mark.timeout(600)
def test_a_study_ends_in_tables_exports_and_the_named_merge(service, repos, command, tmp_path):
    base, one, two, _ = repos
    target = f"{service.user}/study-best"
    publish = [{"experts": [one, two], "method": "dare_ties", "target": {"repo": target}}]
    file = tmp_path / "study.json"
    file.write_text(json.dumps(study(repos, publish=publish)))
    said = command("study", "run", str(file), "--wait", "--json")
    assert said.exit_code == 0, said.output
    report = json.loads(said.stdout)
    assert len(report["cells"]) == 3 * (3 + 4)  # two experts: the pair is all of them
    with service.client() as client:
        job = client.get(report["job"]["id"])
        assert (job["kind"], job["status"]) == ("study", "succeeded")
        assert [stage["name"] for stage in job["stages"]] == [
            "resolving", "downloading", "preparing", "evaluating", "comparing", "sweeping", "reporting",
        ]  # fmt: skip
        (told,) = job["result"]["metrics"]["published"]
        merge = service.wait(told["job"])
        assert merge["status"] == "succeeded", merge["error"]
        assert merge["labels"] == {"paper": "2511.02451", "study": job["id"], "cell": told["cell"]}
        assert merge["resolved"]["experts"] == job["resolved"]["experts"]
        best = next(row for row in report["outcomes"] if row["key"] == told["cell"])
        method = merge["recipe"]["method"]
        assert {name: method[name] for name in ("lambda", "density", "seed")} == best["settings"]
        rows = list(csv.DictReader(io.StringIO(client.export(job["id"]).decode())))
        assert {row["key"] for row in rows} == {row["key"] for row in report["cells"]}
        assert client.export(job["id"], format="parquet")[:4] == b"PAR1"
        assert b"data:image/png" in client.export(job["id"], format="html")
        answers = {task: client._json(_sheets(job["id"], task)) for task in ("choices", "text")}
        assert set(answers["choices"]["models"]) >= {base, one, two, told["cell"]}
        assert differences(report, answers) == []
    shown = command("study", "show", job["id"])
    assert report["verdict"].split(":")[0] in shown.output.replace("\n", " ")
    out = tmp_path / "study.html"
    assert command("study", "export", job["id"], "--format", "html", "--to", str(out)).exit_code == 0
    assert out.read_bytes().startswith(b"<!doctype html>")


@pytest.mark.timeout(600)
def test_a_killed_worker_loses_no_finished_cell(service, repos):
    with service.client() as client:
        grid = {"lambda": [i / 100 for i in range(1, 100)]}  # so many that the kill comes before the last
        methods = [{"method": {"name": "task_arithmetic"}, "grid": grid}]
        job_id = client.study(study(repos, methods=methods))["id"]
        service.wait(job_id, timeout=240, until=lambda job: job["stage"] == "sweeping" and _done(job) > 3)
        service.kill_workers()
        job = service.wait(job_id, timeout=300)
        assert (job["status"], job["attempt"]) == ("succeeded", 2), job
        steps = [event["data"] for event in client.events(job_id) if event["type"] == "sweeping.step"]
        resumed = [data["resumed"] for data in steps if "resumed" in data]
        assert resumed
        assert resumed[0] >= 3
        assert len(client.report(job_id)["cells"]) == 3 * 99


@pytest.mark.timeout(600)
def test_a_study_can_be_cancelled(service, repos):
    with service.client() as client:
        methods = [{"method": {"name": "ties"}, "grid": {
            "lambda": [i / 30 for i in range(1, 30)], "density": [i / 20 for i in range(1, 20)],
        }}]  # fmt: skip
        job_id = client.study(study(repos, methods=methods))["id"]
        service.wait(job_id, timeout=240, until=lambda job: job["stage"] == "sweeping")
        began = time.monotonic()
        client.cancel(job_id)
        assert service.wait(job_id)["status"] == "cancelled"
        assert time.monotonic() - began < 60


def _done(job) -> float:
    return job["progress"]["done"] if job["progress"] else 0.0


def _sheets(job_id: str, task: str):
    from app.client.calls import Call, job_path

    return Call(path=f"{job_path(job_id)}/sheets", params={"task": task})
