"""Evaluations through the running service: tasks fetched by the supervisor, asked by the child, judged, published."""

import io
import json
import time
from pathlib import Path

import pytest

from tests.fixtures.models import SENTENCES
from tests.fixtures.service import Service, start_service, stop_service

CHOICES = [{"question": "Revenue rose by", "choices": [" 12 %", " the lazy dog"], "answer": 0},
           {"question": "The quick brown", "choices": [" row", " fox"], "answer": 1}]  # fmt: skip
FILES = {
    "prose.jsonl": [{"text": text * 2} for text in SENTENCES],
    "fin.jsonl": CHOICES * 2,
    "exact.jsonl": [{"question": "A merge is", "answer": "a row"}],
    "bad.jsonl": [{"text": "good"}, {"txt": "bad"}],
}
SPLITS = ("train", "validation", "test")
CARD = "---\nconfigs:\n- config_name: ARC-Easy\n  data_files:\n" + "".join(
    f"  - split: {split}\n    path: ARC-Easy/{split}-*\n" for split in SPLITS
) + "---\n"  # fmt: skip


def parquet(items: int) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    choices = {"text": ["the fox", "a row", "the quarter"], "label": ["A", "B", "C"]}
    rows = [{"id": str(i), "question": f"What jumps {i}?", "choices": choices, "answerKey": "A"} for i in range(items)]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def sets(service_server: Service) -> str:
    """Task files in the user's namespace, and a small data set under the real name and schema of ARC."""
    hub, repo = service_server.hub.api(service_server.token), f"{service_server.user}/sets"
    hub.create_repo(repo, repo_type="dataset", private=True)
    for name, items in FILES.items():
        data = "".join(json.dumps(item) + "\n" for item in items).encode()
        hub.upload_file(path_or_fileobj=data, path_in_repo=name, repo_id=repo, repo_type="dataset")
    theirs = service_server.hub.api(service_server.hub.user("allenai"))
    theirs.create_repo("allenai/ai2_arc", repo_type="dataset", private=False, exist_ok=True)
    files = {"README.md": CARD.encode()} | {f"ARC-Easy/{split}-0.parquet": parquet(5) for split in SPLITS}
    for path, data in files.items():
        theirs.upload_file(path_or_fileobj=data, path_in_repo=path, repo_id="allenai/ai2_arc", repo_type="dataset")
    return repo


def evaluation(sets: str, **changes) -> dict:
    task = {"repo": sets}
    return {
        "general": [{"task": "arc_easy", "num_fewshot": 1, "ability": "science"},
                    {"name": "prose", "kind": "perplexity", "path": "prose.jsonl", "ability": "prose", **task}],
        "domain": [{"name": "fin", "kind": "multiple_choice", "path": "fin.jsonl", **task},
                   {"name": "exact", "kind": "exact_match", "path": "exact.jsonl", **task}],
        "limit": 4, "controls": False,
    } | changes  # fmt: skip


@pytest.fixture(scope="session")
def measured(service_server: Service, pair, sets) -> dict:
    recipe = service_server.recipe(*pair, "measured", method={"name": "linear"}, evaluation=evaluation(sets))
    job = service_server.run(recipe, timeout=150)
    assert job["status"] == "succeeded", job["error"]
    return job


def test_a_merge_is_measured_before_it_is_published(service, measured, pair, tmp_path):
    stages = [stage["name"] for stage in measured["stages"]]
    assert stages[-2:] == ["evaluating", "publishing"]
    assert stages.index("preparing") < stages.index("merging")
    with service.client() as client:
        report = client.report(measured["id"])
    found = report["evaluation"]
    assert [one["task"] for one in found["tasks"]] == ["arc_easy", "prose", "fin", "exact"]
    assert [one["items"] for one in found["tasks"]] == [4, 4, 4, 1]
    assert set(found["abilities"]) == {"science", "prose"}
    assert measured["result"]["metrics"]["retention"] == found["retention"]["mean"]["value"]
    path = service.hub.api(service.token).hf_hub_download(
        measured["result"]["repo"], "report.json", revision=measured["result"]["commit"], cache_dir=tmp_path
    )
    published = json.loads(Path(path).read_text())
    assert published["evaluation"] == found
    assert "No evaluation was run" not in published["verdict"]


def test_answers_can_be_read_item_by_item(service, measured, pair):
    with service.client() as client:
        sheet = client._json(_call(f"/merges/{measured['id']}/sheets", task="fin"))
    assert set(sheet["models"]) == {*pair, "result"}
    assert len(sheet["items"]) == len(sheet["models"]["result"]["values"]) == 4


def test_base_and_expert_are_asked_once(service, measured, pair, sets):
    recipe = service.recipe(*pair, "measured-again", method={"name": "slerp", "t": 0.5}, evaluation=evaluation(sets))
    job = service.run(recipe, timeout=150)
    assert job["status"] == "succeeded", job["error"]
    with service.client() as client:
        costs = [client.report(one["id"])["costs"]["items_asked"] for one in (measured, job)]
    assert costs == [3 * 13, 13]


def test_a_gate_keeps_a_result_from_being_published(service, pair, sets):
    gate = {"min_retention": 9, "on_fail": "block"}
    recipe = service.recipe(*pair, "blocked", method={"name": "linear"}, evaluation=evaluation(sets, gate=gate))
    job = service.run(recipe, timeout=150)
    assert (job["status"], job["error"]["code"]) == ("failed", "gate_failed")
    assert job["attempt"] == 1
    with service.client() as client:
        report = client.report(job["id"])
    assert report["evaluation"]["gate"]["passed"] is False
    assert not service.hub.api(service.token).repo_exists(f"{service.user}/blocked")


def test_a_bad_line_is_told_before_the_weights_are_fetched(service, pair, sets):
    task = {"name": "bad", "kind": "perplexity", "repo": sets, "path": "bad.jsonl"}
    recipe = service.recipe(*pair, "bad-line", method={"name": "linear"}, evaluation={"general": [task]})
    job = service.run(recipe)
    assert (job["error"]["code"], job["error"]["stage"]) == ("task_invalid", "downloading")
    assert "line 2: text is missing" in job["error"]["message"]
    with service.client() as client:
        fetched = {event["data"]["repo"] for event in client.events(job["id"]) if event["type"] == "file.downloaded"}
    assert fetched <= {sets}


def test_what_was_published_can_be_measured_on_its_own(service, measured, pair, sets):
    base, adapted = pair
    body = {
        "models": [{"repo": measured["result"]["repo"]}, {"repo": adapted}], "base": {"repo": base},
        "experts": [{"repo": adapted}], "evaluation": evaluation(sets),
    }  # fmt: skip
    with service.client() as client:
        job = service.wait(client.evaluate(body)["id"], timeout=150)
        assert job["status"] == "succeeded", job["error"]
        report = client.report(job["id"])
        first = client.report(measured["id"])["evaluation"]
    models = report["evaluation"]["models"]
    assert models[0]["repo"] == measured["result"]["repo"]
    assert models[0]["retention"] == first["retention"]
    assert report["costs"]["items_asked"] == 0  # the merge asked them all, of the very same files


def test_an_evaluation_can_be_cancelled_while_it_asks(service, pair, sets):
    body = {"models": [{"repo": pair[0]}], "evaluation": evaluation(sets, limit=3, seed=int(time.time()))}
    with service.client() as client:
        job = client.evaluate(body)
        service.wait(job["id"], until=lambda one: one["stage"] in {"preparing", "evaluating"})
        client.cancel(job["id"])
        assert service.wait(job["id"])["status"] in {"cancelled", "succeeded"}


def test_a_worker_that_dies_while_it_asks_goes_on_where_it_was(service, pair, sets, tmp_path):
    """Sheets that were answered are not asked for again; the job publishes once."""
    point = f"evaluating.step#6@1:{service.user}/struck"
    other = start_service(service.hub, tmp_path, account=(service.user, service.token), SPEAR_CRASH_AT=point)
    try:
        recipe = other.recipe(*pair, "struck", method={"name": "linear"}, evaluation=evaluation(sets))
        job = other.run(recipe, timeout=150)
        assert (job["status"], job["attempt"]) == ("succeeded", 2), job["error"]
        with other.client() as client:
            asked = client.report(job["id"])["costs"]["items_asked"]
        assert 0 < asked < 3 * 13
        assert len(other.commits_of(job)) == 1
    finally:
        stop_service(other)


def _call(path: str, **params):
    from app.client.calls import Call

    return Call(path=path, params=params)
