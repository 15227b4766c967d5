"""POST /studies: accepted, shown, bound to its caller; what is wrong with one is refused before anything is queued."""

import base64
import json

import pytest

from app.jobs.documents import put_documents
from tests.fixtures.api import Api

LINES = b'{"question": "a", "choices": [" b", " c"], "answer": 0}\n'


def study(api: Api, **changes) -> dict:
    task = {"kind": "multiple_choice", "repo": f"{api.user}/sets", "repo_type": "dataset"}
    return {
        "base": {"repo": f"{api.user}/base"},
        "experts": [{"repo": f"{api.user}/adapted"}, {"repo": f"{api.user}/second", "domain": "finance"}],
        "methods": [{"method": {"name": "task_arithmetic"}, "grid": {"lambda": [0.3, 0.7]}}],
        "evaluation": {
            "domain": [{"name": "fin", "path": "fin.jsonl", "ability": "finance", **task}],
            "calibration": {"domain": [{"name": "cal", "path": "cal.jsonl", **task}]},
        },
    } | changes


@pytest.fixture
def sets(api: Api) -> Api:
    """The API with what a study names."""
    push_named(api)
    return api


def push_named(api: Api) -> None:
    """A second expert, and a data set of two task files."""
    from tests.fixtures.checkpoints import checkpoint

    api.push("second", checkpoint(shards=2, seed=7))
    hub = api.hub.api(api.token)
    repo = f"{api.user}/sets"
    hub.create_repo(repo, repo_type="dataset", private=True, exist_ok=True)
    for name in ("fin", "cal"):
        data = LINES.replace(b'"a"', json.dumps(name).encode())
        hub.upload_file(path_or_fileobj=data, path_in_repo=f"{name}.jsonl", repo_id=repo, repo_type="dataset")


def test_a_study_is_a_job_of_its_own_kind(sets):
    api = sets
    answer = api.call("POST", "/studies", json=study(api))
    job = answer.json()
    assert (answer.status_code, job["kind"], job["id"][:4]) == (202, "study", "std_"), job
    assert answer.headers["Location"] == f"/studies/{job['id']}" == job["links"]["self"]
    assert [one["repo"] for one in job["resolved"]["experts"]] == [f"{api.user}/adapted", f"{api.user}/second"]
    assert {one["repo"] for one in job["resolved"]["tasks"]} == {f"{api.user}/sets"}
    assert api.call("GET", f"/merges/{job['id']}").status_code == 404
    assert [one["id"] for one in api.call("GET", "/studies").json()["data"]] == [job["id"]]
    assert api.call("GET", f"/studies/{job['id']}/export").json()["code"] == "not_found"
    assert api.call("POST", f"/studies/{job['id']}/cancel").json()["status"] == "cancelled"
    assert api.call("POST", f"/studies/{job['id']}/retry").json()["retry_of"] == job["id"]


def test_an_export_is_a_file_that_runs_nothing(sets):
    api = sets
    job = api.call("POST", "/studies", json=study(api)).json()["id"]
    made = {"html": {"media_type": "text/html; charset=utf-8", "base64": base64.b64encode(b"<p>x</p>").decode()}}
    with api.services.database.transaction() as session:
        put_documents(session, job, {"exports": made})
    answer = api.call("GET", f"/studies/{job}/export", params={"format": "html"})
    assert answer.content == b"<p>x</p>"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{job}.html"'
    assert "sandbox" in answer.headers["Content-Security-Policy"]
    assert api.call("GET", f"/studies/{job}/export", params={"format": "csv"}).status_code == 404
    assert api.call("GET", f"/studies/{job}/export", params={"format": "xlsx"}).status_code == 400


def test_what_would_fail_is_refused_at_once(sets):
    api = sets
    publish = {"experts": [f"{api.user}/adapted"], "method": "task_arithmetic", "target": {"repo": "somebody/else"}}
    evaluation = study(api)["evaluation"]
    for change, code, pointer in (
        ({"publish": [publish]}, "write_not_granted", "/publish/0/target/repo"),
        ({"evaluation": {**evaluation, "general": [{"task": "no_such_task"}]}}, "task_unknown", "/evaluation"),
        ({"evaluation": {**evaluation, "calibration": None}}, "invalid_recipe", ""),
        ({"evaluation": {**evaluation, "calibration": {}}}, "invalid_recipe", "/evaluation/calibration"),
        ({"evaluation": {**evaluation, "calibration": {"domain": evaluation["domain"]}}}, "invalid_recipe", ""),
        ({"methods": [{"method": {"name": "ties", "density": [{"filter": "nothing", "value": 0.5}]}}]},
         "invalid_recipe", "/methods/0"),
        ({"experts": [{"repo": f"{api.user}/adapted"}]}, "invalid_recipe", "/experts"),
        ({"base": {"repo": f"{api.user}/none"}}, "repo_not_found", "/base/repo"),
    ):
        answer = api.call("POST", "/studies", json=study(api, **change))
        assert answer.status_code in {403, 404, 422}, answer.text
        body = answer.json()
        assert body["code"] == code, body
        assert any(one["pointer"].startswith(pointer) for one in body["errors"]), body
