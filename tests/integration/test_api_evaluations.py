"""POST /evaluations, and merges with an evaluation: what is wrong with the tasks is refused before it is queued."""

import json

import pytest

from app.jobs.documents import put_documents
from app.jobs.sheets import AnswerSheets
from app.jobs.states import Status
from app.jobs.tables import Job
from tests.fixtures.api import Api
from tests.fixtures.checkpoints import CONFIG, checkpoint
from tests.integration.test_api_jobs import finish

TEXTS = b'{"text": "a"}\n{"text": "b"}\n'
ARC = "---\nconfigs:\n- config_name: ARC-Easy\n  data_files:\n  - split: test\n    path: ARC-Easy/test-*\n---\n"


def push_set(api: Api, files: dict[str, bytes], *, repo: str = "", user: str = "", private: bool = True) -> str:
    token = api.hub.user(user) if user else api.token
    hub, repo = api.hub.api(token), repo or f"{api.user}/sets"
    hub.create_repo(repo, repo_type="dataset", private=private, exist_ok=True)
    for path, data in files.items():
        hub.upload_file(path_or_fileobj=data, path_in_repo=path, repo_id=repo, repo_type="dataset")
    return repo


def prose(api: Api, **changes) -> dict:
    return {"name": "prose", "kind": "perplexity", "repo": f"{api.user}/sets", "path": "prose.jsonl"} | changes


def request(api: Api, **changes) -> dict:
    return {"models": [{"repo": f"{api.user}/adapted"}], "evaluation": {"general": [prose(api)]}} | changes


@pytest.fixture
def sets(api: Api) -> Api:
    push_set(api, {"prose.jsonl": TEXTS, "again.jsonl": TEXTS, "other.jsonl": TEXTS + TEXTS})
    return api


def refusal(api: Api, evaluation: dict, *, path: str = "/merges", **options) -> tuple[int, str, str | None, str]:
    body = api.recipe(evaluation=evaluation) if path == "/merges" else request(api, evaluation=evaluation)
    answer = api.call("POST", path, json=body, **options)
    problem = answer.json()
    pointer = problem["errors"][0]["pointer"] if problem.get("errors") else None
    return answer.status_code, problem.get("code", ""), pointer, problem.get("detail", "")


def test_an_evaluation_is_a_job_of_its_own_kind(sets):
    api = sets
    answer = api.call("POST", "/evaluations", json=request(api))
    job = answer.json()
    assert (answer.status_code, job["kind"], job["id"][:4]) == (202, "evaluation", "evl_"), job
    assert answer.headers["Location"] == f"/evaluations/{job['id']}" == job["links"]["self"]
    assert [one["repo"] for one in job["resolved"]["models"]] == [f"{api.user}/adapted"]
    (source,) = job["resolved"]["tasks"]
    assert (source["repo"], source["repo_type"], len(source["commit"])) == (f"{api.user}/sets", "dataset", 40)
    assert [one["id"] for one in api.call("GET", "/evaluations").json()["data"]] == [job["id"]]
    assert api.call("GET", f"/merges/{job['id']}").status_code == 404
    assert api.call("POST", f"/evaluations/{job['id']}/cancel").json()["status"] == "cancelled"
    assert api.call("POST", f"/evaluations/{job['id']}/retry").json()["retry_of"] == job["id"]


def test_sheets_are_given_task_by_task(sets):
    api = sets
    job = api.call("POST", "/evaluations", json=request(api)).json()["id"]
    one = {"kind": "loss", "metric": "nll", "unit": "nats/token", "items": ["a" * 16],
           "models": {"org/x": {"values": [2.5], "weights": [3.0]}}}  # fmt: skip
    with api.services.database.transaction() as session:
        put_documents(session, job, {"sheets": {"tasks": {"prose, or {so}": one}}})
    answer = api.call("GET", f"/evaluations/{job}/sheets", params={"task": "prose, or {so}"})
    assert answer.json() == {"task": "prose, or {so}", **one}
    absent = api.call("GET", f"/evaluations/{job}/sheets", params={"task": "none"})
    assert (absent.status_code, "it has: prose" in absent.json()["detail"]) == (404, True)


def test_unknown_tasks_are_refused_with_names_that_are_near(api):
    status, code, pointer, detail = refusal(api, {"domain": [{"task": "arc_esay"}]})
    assert (status, code, pointer) == (422, "task_unknown", "/evaluation/domain/0/task")
    assert "arc_easy" in detail
    assert refusal(api, {"general": [{"task": "humaneval"}]})[1] == "task_unsupported"


def test_a_data_set_is_read_as_plain_data_only(api):
    push_set(api, {"ai2_arc.py": b"import os"}, repo="allenai/ai2_arc", user="allenai", private=False)
    status, code, pointer, detail = refusal(api, {"general": [{"task": "arc_easy"}]})
    assert (status, code, pointer) == (422, "task_unsupported", "/evaluation/general/0/task")
    assert "no plain data files" in detail
    push_set(api, {"README.md": ARC.encode(), "ARC-Easy/test-0.parquet": b"x"}, repo="allenai/ai2_arc", user="allenai")
    accepted = api.submit(api.recipe(evaluation={"general": [{"task": "arc_easy"}]}))
    assert accepted.status_code == 202
    assert accepted.json()["resolved"]["tasks"][0]["repo"] == "allenai/ai2_arc"
    assert "has no configuration ARC-Challenge" in refusal(api, {"general": [{"task": "arc_challenge"}]})[3]


def test_data_that_the_caller_may_not_read_is_refused(sets):
    api = sets
    stranger, token = api.hub.fresh_user()
    key = api.new_key("stranger", grants=[stranger])
    for name in ("base", "adapted"):
        hub = api.hub.api(token)
        hub.create_repo(f"{stranger}/{name}", private=True)
        for path, data in checkpoint(seed=3).items():
            hub.upload_file(path_or_fileobj=data, path_in_repo=path, repo_id=f"{stranger}/{name}")
    body = {"models": [{"repo": f"{stranger}/base"}], "evaluation": {"general": [prose(api)]}}
    answer = api.call("POST", "/evaluations", json=body, key=key)
    assert answer.json()["code"] in {"read_not_granted", "repo_not_found", "repo_access_denied"}
    assert answer.status_code in {403, 422}


def test_a_gated_data_set_without_access(api):
    other, token = api.hub.fresh_user()
    hub, repo = api.hub.api(token), f"{other}/sets"
    hub.create_repo(repo, repo_type="dataset", private=False)
    hub.upload_file(path_or_fileobj=TEXTS, path_in_repo="prose.jsonl", repo_id=repo, repo_type="dataset")
    hub.update_repo_settings(repo, gated="manual", repo_type="dataset")
    found = refusal(api, {"general": [prose(api, repo=repo, repo_type="dataset")]})
    assert found[:3] == (403, "repo_gated", "/evaluation/general/0/repo")


def test_files_that_are_not_there(sets):
    api = sets
    found = refusal(api, {"general": [prose(api, path="none.jsonl")]})
    assert found[:3] == (422, "task_invalid", "/evaluation/general/0/path")
    found = refusal(api, {"general": [prose(api, repo=f"{api.user}/nowhere")]})
    assert found[:3] == (422, "repo_not_found", "/evaluation/general/0/repo")
    found = refusal(api, {"general": [prose(api, revision="v9")]})
    assert found[:3] == (422, "revision_not_found", "/evaluation/general/0/revision")


def test_an_empty_file_is_refused_at_once(sets):
    api = sets
    push_set(api, {"empty.jsonl": b""})
    calibration = {"general": [prose(api, name="cal", path="empty.jsonl")]}
    found = refusal(api, {"general": [prose(api)], "calibration": calibration})
    assert found[:3] == (422, "task_empty", "/evaluation/calibration/general/0/path")


def test_what_is_calibrated_on_is_never_reported_on(sets):
    api = sets
    same = {"general": [prose(api)], "calibration": {"general": [prose(api, name="copy")]}}
    assert refusal(api, same)[1] == "invalid_recipe"
    named = {"general": [prose(api)], "calibration": {"general": [prose(api, path="other.jsonl")]}}
    assert "has the name of" in refusal(api, named)[3]
    twin = {"general": [prose(api)], "calibration": {"general": [prose(api, name="twin", path="again.jsonl")]}}
    status, code, pointer, detail = refusal(api, twin)  # another file of the same content
    assert (status, code, pointer) == (422, "invalid_recipe", "/evaluation/calibration")
    assert "twin" in detail
    empty = {"general": [prose(api)], "calibration": {}}
    assert refusal(api, empty)[1] == "invalid_recipe"
    apart = {"general": [prose(api)], "calibration": {"general": [prose(api, name="cal", path="other.jsonl")]}}
    assert api.submit(api.recipe(evaluation=apart)).status_code == 202


def test_models_that_cannot_be_asked(sets):
    api = sets
    api.push("encoder", checkpoint(config=CONFIG | {"model_type": "vit"}, seed=4))
    answer = api.call("POST", "/evaluations", json=request(api, models=[{"repo": f"{api.user}/encoder"}]))
    problem = answer.json()
    assert (problem["code"], problem["errors"][0]["pointer"]) == ("model_unsupported", "/models/0/repo")


def test_a_gate_needs_what_it_judges(sets):
    api = sets
    found = refusal(api, {"general": [prose(api)], "gate": {"min_gain_kept": 0.9}})
    assert found[:2] == (422, "invalid_recipe")
    assert refusal(api, {"general": [prose(api)], "gate": {"min_retention": 0.9}}, path="/evaluations")[:2] == (
        422, "invalid_recipe",
    )  # fmt: skip


def test_the_cache_keeps_what_was_used_last(api):
    sheets = AnswerSheets(api.services.database, max_bytes=60)
    for model in ("m1", "m2", "m3"):
        body = {"values": [json.dumps([ord(c) for c in model]) * 2]}
        sheets.add({"model": model, "task": "t", "settings": "s", "body": body})
        sheets.add({"model": model, "task": "t", "settings": "s", "body": {"values": ["other"]}})  # the first stays
    (first,) = sheets.find(["m1"])
    assert first["body"]["values"] != ["other"]
    assert sheets.trim() > 0
    assert [one["model"] for one in sheets.find(["m1", "m2", "m3"])][:1] == ["m1"]


def test_a_finished_evaluation_shows_its_report(sets):
    api = sets
    job = api.call("POST", "/evaluations", json=request(api)).json()["id"]
    finish(api, job, Status.SUCCEEDED)
    with api.services.database.transaction() as session:
        assert session.get(Job, job).target_repo is None


PLAIN = {"tokenizer_class": "TokenizersBackend"}


@pytest.mark.parametrize(
    ("files", "kind", "lacks"),
    [
        ({"tokenizer_config.json": PLAIN}, "perplexity", "bos_token"),
        ({"tokenizer_config.json": {"bos_token": None, "eos_token": None}}, "perplexity", "bos_token"),
        ({"tokenizer_config.json": PLAIN | {"bos_token": "<s>"}}, "perplexity", None),
        ({"tokenizer_config.json": PLAIN | {"bos_token": "<s>"}}, "exact_match", "eos_token"),
        ({"tokenizer_config.json": PLAIN | {"eos_token": {"content": "</s>"}}}, "exact_match", None),
        ({"tokenizer_config.json": PLAIN, "special_tokens_map.json": {"eos_token": "</s>"}}, "exact_match", None),
        ({"tokenizer_config.json": {"tokenizer_class": "GPT2Tokenizer"}}, "exact_match", None),
        ({"tokenizer_config.json": PLAIN, "special_tokens_map.json": ["no map"]}, "exact_match", None),
        ({}, "exact_match", None),
    ],
)
def test_a_tokenizer_that_surely_lacks_a_token_is_refused_at_once(sets, files, kind, lacks):
    api = sets
    api.push("other", checkpoint(seed=9) | {name: json.dumps(said).encode() for name, said in files.items()})
    experts = [{"repo": f"{api.user}/other"}]
    evaluation = {"general": [prose(api, kind=kind)]}
    answer = api.submit(api.recipe(experts=experts, evaluation=evaluation, target={"repo": f"{api.user}/t"}))
    if lacks is None:
        assert answer.status_code == 202, answer.json()
        api.call("POST", f"/merges/{answer.json()['id']}/cancel")
        return
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "tokenizer_unsuitable")
    assert problem["errors"][0]["pointer"] == "/experts/0/repo"
    assert f"{api.user}/other" in problem["detail"]
    assert lacks in problem["detail"]
    assert api.submit(api.recipe(experts=experts, target={"repo": f"{api.user}/t"})).status_code == 202  # not measured


def test_a_model_type_whose_tokenizer_class_brings_an_end_is_not_refused_for_lacking_one(sets):
    api = sets  # transformers gives a qwen2 model Qwen2Tokenizer, with an end of its own, whatever its config names
    files = checkpoint(config=CONFIG | {"model_type": "qwen2"}, seed=9)
    api.push("qwen", files | {"tokenizer_config.json": json.dumps(PLAIN).encode()})
    evaluation = {"general": [prose(api, kind="exact_match")]}
    answer = api.submit(api.recipe(experts=[{"repo": f"{api.user}/qwen"}], evaluation=evaluation))
    assert "tokenizer" not in answer.text  # that the base is a llama is another matter
