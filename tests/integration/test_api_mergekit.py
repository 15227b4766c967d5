"""mergekit's YAML as the body of a merge: taken as it is, or refused with its line and key."""

import json
import os
import subprocess
import sys

import pytest

from tests.fixtures.checkpoints import CONFIG, VOCABULARY, checkpoint

TIES = """
models:
  - model: {user}/base
  - model: {user}/adapted
    parameters:
      density: {density}
      weight: 0.3
merge_method: ties
base_model: {user}/base
parameters:
  normalize: true
dtype: bfloat16
"""


@pytest.fixture
def body(api):
    def make(text=TIES, **more):
        filled = text.replace("{user}", api.user).replace("{density}", "0.5")
        return {"mergekit": filled, "target": {"repo": f"{api.user}/target"}} | more

    return make


def test_the_job_shows_the_recipe_that_it_became(api, body):
    answer = api.submit(body(labels={"team": "risk"}, output={"max_shard_bytes": 2_000_000}))
    job = answer.json()
    assert answer.status_code == 202
    recipe = job["recipe"]
    assert recipe["base"] == {"repo": f"{api.user}/base", "revision": "main"}
    assert [(e["repo"], e["weight"], e["density"]) for e in recipe["experts"]] == [(f"{api.user}/adapted", 0.3, 0.5)]
    assert (recipe["method"]["name"], recipe["method"]["normalize"]) == ("ties", True)
    assert (recipe["method"]["dtype"], recipe["method"]["compat"]) == ("bfloat16", None)
    assert recipe["output"] == {"dtype": None, "max_shard_bytes": 2_000_000}
    assert job["labels"] == {"team": "risk"}
    assert len(job["resolved"]["base"]["commit"]) == 40


def test_what_it_became_can_be_submitted_as_it_is(api, body):
    recipe = api.submit(body()).json()["recipe"]
    again = api.submit(recipe | {"target": {"repo": f"{api.user}/other"}, "method": recipe["method"] | {"seed": 7}})
    assert again.status_code == 422  # ties draws nothing
    again = api.submit(recipe | {"target": {"repo": f"{api.user}/other"},
                                 "method": recipe["method"] | {"compat": "mergekit"}})  # fmt: skip
    assert (again.status_code, again.json()["recipe"]["method"]["compat"]) == (202, "mergekit")


def test_the_plan_shows_the_recipe_too(api, body):
    plan = api.call("POST", "/merges/plan", json=body()).json()
    assert plan["accepted"]
    assert plan["recipe"]["method"]["name"] == "ties"
    assert api.call("GET", "/merges").json()["data"] == []


def test_the_same_key_and_yaml_make_one_job(api, body):
    answers = [api.submit(body(), headers={"Idempotency-Key": "k"}) for _ in range(2)]
    assert answers[0].json()["id"] == answers[1].json()["id"]
    assert answers[1].headers["Idempotent-Replayed"] == "true"
    other = api.submit(body(TIES.replace("0.3", "0.4")), headers={"Idempotency-Key": "k"})
    assert other.json()["code"] == "idempotency_key_reused"


@pytest.mark.parametrize("route", ["/merges", "/merges/plan"])
@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        (TIES.replace("ties", "magic"), 8, "merge_method"),
        (TIES.replace("{density}", "1.5"), 6, "models[1].parameters.density"),
        (TIES + "tokenizer_source: union\n", 13, "tokenizer_source"),
        (TIES.replace("{user}/adapted", "./merged"), 4, "models[1].model"),
        ("models: [", 1, ""),
    ],
)
def test_a_refusal_names_line_and_key(api, body, route, text, line, key):
    answer = api.call("POST", route, json=body(text))
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "invalid_recipe")
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["errors"][0]["pointer"] == "/mergekit"
    assert problem["detail"].startswith(f"line {line}: {key}" if key else f"line {line}: ")
    assert (problem["names"]["line"], problem["names"]["key"]) == (line, key)
    assert not api.hub.requests()


def test_what_the_hub_says_of_a_model_points_at_its_line(api, body):
    problem = api.submit(body(TIES.replace("{user}/adapted", "{user}/absent"))).json()
    assert (problem["code"], problem["names"]["line"]) == ("repo_not_found", 4)
    assert problem["errors"][0]["pointer"] == "/mergekit"
    assert f"{api.user}/absent" in problem["detail"]
    plan = api.call("POST", "/merges/plan", json=body(TIES.replace("{user}/adapted", "{user}/absent"))).json()
    assert (plan["accepted"], plan["refusals"][0]["pointer"]) == (False, "/mergekit")


def test_the_target_is_the_requests_own(api, body):
    problem = api.submit(body(target={"repo": "somebody/else"})).json()
    assert (problem["code"], problem["errors"][0]["pointer"]) == ("write_not_granted", "/target/repo")
    problem = api.submit(body(target={"repo": "nothing"})).json()
    assert (problem["code"], problem["errors"][0]["pointer"]) == ("invalid_recipe", "/target/repo")
    missing = body()
    del missing["target"]
    assert api.submit(missing).json()["errors"][0]["pointer"] == "/target"


@pytest.mark.parametrize("field", ["base", "experts", "method", "tokenizer_source", "surprise"])
def test_nothing_may_contradict_the_yaml(api, body, field):
    answer = api.submit(body(**{field: api.recipe().get(field, "x")}))
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_recipe")
    assert answer.json()["errors"][0]["pointer"] == f"/{field}"


def test_two_dtypes_are_one_too_many(api, body):
    problem = api.submit(body(output={"dtype": "float32"})).json()
    assert (problem["code"], problem["errors"][0]["pointer"]) == ("invalid_recipe", "/output/dtype")
    assert "line 12" in problem["detail"]
    without = TIES.replace("dtype: bfloat16\n", "")
    assert api.submit(body(without, output={"dtype": "float32"})).json()["recipe"]["output"]["dtype"] == "float32"


SLICES = """
slices:
  - sources:
      - model: {user}/base
        layer_range: [0, LAYERS]
      - model: {user}/adapted
        layer_range: [0, LAYERS]
merge_method: slerp
base_model: {user}/base
parameters:
  t: 0.5
"""


def test_slices_have_to_cover_the_model(api, body):
    problem = api.submit(body(SLICES.replace("LAYERS", "2"))).json()
    assert (problem["code"], problem["names"]["line"]) == ("architecture_mismatch", 2)
    assert "1" in problem["detail"]
    assert api.submit(body(SLICES.replace("LAYERS", "1"))).status_code == 202


def test_filters_have_to_match_every_tensor(api, body):
    text = SLICES.replace("LAYERS", "1").replace("t: 0.5", "t: [{filter: mlp, value: 0.5}]")
    problem = api.submit(body(text)).json()
    names = problem["names"]
    assert (problem["code"], names["line"], names["key"]) == ("invalid_recipe", 11, "parameters.t")
    assert names["tensor"]
    assert api.submit(body(text.replace("}]", "}, {value: 0}]"))).status_code == 202


def test_a_vocabulary_is_chosen(api, body):
    vocabulary = {token: 9 - number for token, number in VOCABULARY.items()}
    api.push("moved", checkpoint(seed=3, vocabulary=vocabulary, config=CONFIG))
    text = TIES.replace("{user}/adapted", "{user}/moved")
    assert api.submit(body(text)).json()["code"] == "vocabulary_mismatch"
    job = api.submit(body(text + "tokenizer_source: base\n"))
    assert (job.status_code, job.json()["recipe"]["tokenizer_source"]) == (202, "base")


def test_openapi_shows_both_forms(api):
    schema = api.call("GET", "/openapi.json").json()
    for path in ("/merges", "/merges/plan"):
        body = schema["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert {one["$ref"].rpartition("/")[2] for one in body["oneOf"]} == {"Recipe", "MergekitForm"}
    assert {"Recipe", "MergekitForm"} <= set(schema["components"]["schemas"])


def spear(*arguments, env=None):
    return subprocess.run(
        [sys.executable, "-m", "app.cli", *map(str, arguments)], capture_output=True, text=True, timeout=60,
        check=False, env=os.environ | (env or {}),
    )  # fmt: skip


def test_the_command_line_asks_for_the_target(tmp_path):
    recipe, plain = tmp_path / "merge.yml", tmp_path / "merge.json"
    recipe.write_text(TIES)
    plain.write_text(json.dumps({}))
    env = {"SPEAR_API_KEY": "k", "SPEAR_API_URL": "http://127.0.0.1:9"}
    for arguments, words in (
        (("submit", recipe), "add --target"),
        (("plan", recipe), "add --target"),
        (("submit", plain, "--target", "a/b"), "names its own target"),
        (("submit", plain, "--public"), "go with --target"),
    ):
        ended = spear(*arguments, env=env)
        assert ended.returncode == 1
        assert words in ended.stderr
