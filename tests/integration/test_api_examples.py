"""Every example in the API's description, sent to the running API: each operation answers as the description says."""

import json
import re
from uuid import uuid4

import pytest
from jsonschema import Draft202012Validator

from app.api.compatibility import operations
from app.api.examples import EVALUATION, JOB, SCORING, STUDY, example_of
from app.client.calls import job_path
from tests.fixtures.left_behind import leave_behind
from tests.integration.test_api_studies import push_named, study


@pytest.fixture
def live(api):
    """The API with one job of each kind that has ended as the examples need it, and who may do everything."""
    key = api.services.keys.create(
        name="examples", scopes=("admin",), reads=[api.user], writes=[api.user], unlimited=True
    )
    push_named(api)
    found = {}
    tasks = {"domain": study(api)["evaluation"]["domain"]}
    measuring = {"models": [{"repo": f"{api.user}/base"}], "evaluation": tasks}
    for path, body, example in (
        ("/merges", api.recipe(target={"repo": f"{api.user}/first"}), JOB),
        ("/scores", {name: value for name, value in api.recipe().items() if name != "target"}, SCORING),
        ("/studies", study(api), STUDY),
        ("/evaluations", measuring, EVALUATION),
    ):
        job = api.call("POST", path, key=key, json=body).json()
        found[example] = job["id"]
    return api, key, found


def described(api):
    document = api.http.get("/openapi.json").json()
    return document, list(operations(document))


def prepared(api, key: str, found: dict[str, str], *, ended: bool) -> None:
    """The jobs with documents and a delivery; ended where the operation needs that."""
    for job_id in found.values():
        leave_behind(api, job_id)
    if ended:
        for job_id in found.values():
            api.call("POST", f"{job_path(job_id)}/cancel", key=key)


def test_every_example_is_answered_as_described(live):
    api, key, found = live
    document, every = described(api)
    prepared(api, key, found, ended=False)
    made = api.call("POST", "/keys", key=key, json={"name": "spare", "scopes": ["merges:read"]}).json()
    found["key_01jdz8k3n4q5r6s7t8v9w0x1y2"] = made["id"]
    calls = 0
    for path, method, operation in sorted(every, key=lambda one: ("retry" in one[0], "revoke" in one[0], one[0])):
        if path.endswith("/retry"):
            prepared(api, key, {k: v for k, v in found.items() if not v.startswith("key_")}, ended=True)
        for body in bodies(operation):
            answer = send(api, key, found, path=path, method=method, operation=operation, body=body)
            good = [status for status in operation["responses"] if status.startswith("2")]
            assert str(answer.status_code) in good, (method, path, body, answer.text)
            check(document, operation, answer)
            calls += 1
    assert calls > len(every)


def bodies(operation) -> list:
    contents = operation.get("requestBody", {}).get("content", {})
    return [one["value"] for content in contents.values() for one in content["examples"].values()] or [None]


def send(api, key: str, found: dict[str, str], *, path: str, method: str, operation, body):
    """The call with the examples of what is needed, and of what narrows nothing away."""
    parameters = operation.get("parameters", [])
    examples = {one["name"]: one.get("example") for one in parameters}
    for name in re.findall(r"{(\w+)}", path):
        value = examples[name]
        path = path.replace(f"{{{name}}}", str(found.get(value, value)))
    query = {one["name"]: examples[one["name"]] for one in parameters if one["in"] == "query" and one.get("required")}
    headers = {"Idempotency-Key": f'"{uuid4()}"'} if "idempotency-key" in examples else {}
    text = None if body is None else json.dumps(body).replace("org/", f"{api.user}/").replace('"org"', f'"{api.user}"')
    headers["Content-Type"] = "application/json"
    return api.call(method.upper(), path, key=key, params=query, headers=headers, content=text)


def check(document, operation, answer) -> None:
    """The body against the schema of its status and content type."""
    described = operation["responses"][str(answer.status_code)]
    kind = answer.headers["content-type"].partition(";")[0]
    assert kind in described["content"], (operation["operationId"], kind)
    if kind == "application/json":
        schema = described["content"][kind]["schema"] | {"components": document["components"]}
        Draft202012Validator(schema).validate(answer.json())


def test_the_optional_parameters_are_taken_as_in_their_examples(live):
    api, key, found = live
    _, every = described(api)
    for path, method, operation in every:
        if method != "get" or "{key_id}" in path:
            continue
        query = {
            one["name"]: one["example"] for one in operation.get("parameters", [])
            if one["in"] == "query" and "example" in one and not one["required"]
        }
        for name in re.findall(r"{(\w+)}", path):
            value = example_of(operation["operationId"], name)
            path = path.replace(f"{{{name}}}", str(found.get(value, value)))  # noqa: PLW2901
        if query:
            assert api.call("GET", path, key=key, params=query).status_code in (200, 404), (path, query)


def test_a_problems_type_leads_to_its_explanation(api):
    problem = api.call("GET", "/merges/mrg_none").json()
    page = api.http.get(problem["type"], headers={"Accept": "text/html"})
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert "not_found" in page.text
    assert api.http.get(problem["type"]).json()["code"] == "not_found"
    assert api.http.get("/problems/none").status_code == 404


def test_cursors_belong_to_the_list_and_its_filters(api):
    for number in range(3):
        assert api.submit(api.recipe(target={"repo": f"{api.user}/t{number}"}, labels={"a": "b"})).status_code == 202
    first = api.call("GET", "/merges?limit=2&label=a:b&status=queued").json()
    cursor = first["next_cursor"]
    assert len(api.call("GET", f"/merges?label=a:b&status=queued&cursor={cursor}").json()["data"]) == 1
    for other in ("", "&label=a:c&status=queued", "&label=a:b", "&label=a:b&status=queued&target=x/y"):
        answer = api.call("GET", f"/merges?limit=2&cursor={cursor}{other}")
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request"), other
    forged = cursor[:-2] + ("AA" if cursor[-2:] != "AA" else "BB")
    assert api.call("GET", f"/merges?label=a:b&status=queued&cursor={forged}").status_code == 400


def test_a_wrong_method_is_told_all_the_right_ones(api):
    answer = api.call("PUT", "/merges")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, POST")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/xml", ""])
def test_a_body_that_is_not_json_by_its_type(api, kind):
    answer = api.call("POST", "/merges", content=json.dumps(api.recipe()), headers={"Content-Type": kind})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
    assert api.call("POST", "/merges", headers={"Content-Type": kind}).status_code == 422


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON", "application/problem+json"])
def test_other_spellings_of_json_are_json(api, kind):
    answer = api.call("POST", "/merges", content=json.dumps(api.recipe()), headers={"Content-Type": kind})
    assert answer.status_code == 202
