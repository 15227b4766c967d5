"""POST /scores: accepted, shown and bound to its caller; a merge that names a scoring."""

from app.jobs.states import Status
from tests.fixtures.checkpoints import checkpoint
from tests.integration.test_api_jobs import finish


def submit(api, **changes):
    body = {"base": {"repo": f"{api.user}/base"}, "experts": [{"repo": f"{api.user}/adapted"}]} | changes
    return api.call("POST", "/scores", json=body)


def test_a_scoring_is_a_job_of_its_own_kind(api):
    answer = submit(api)
    job = answer.json()
    assert (answer.status_code, job["kind"], job["id"][:4]) == (202, "scores", "scr_")
    assert answer.headers["Location"] == f"/scores/{job['id']}" == job["links"]["self"]
    assert "target" not in job["resolved"]
    assert api.call("GET", f"/scores/{job['id']}").json()["status"] == "queued"
    assert api.call("GET", f"/merges/{job['id']}").status_code == 404
    assert [one["id"] for one in api.call("GET", "/scores").json()["data"]] == [job["id"]]
    assert api.call("GET", "/merges").json()["data"] == []
    assert submit(api).status_code == 202
    assert api.call("POST", f"/scores/{job['id']}/cancel").json()["status"] == "cancelled"
    assert api.call("POST", f"/scores/{job['id']}/retry").json()["retry_of"] == job["id"]


def test_a_scoring_needs_no_write_grant_but_the_same_checks(api):
    reader = api.services.keys.create(name="r", scopes=("merges:write",), reads=[api.user])
    body = {"base": {"repo": f"{api.user}/base"}, "experts": [{"repo": f"{api.user}/adapted"}]}
    assert api.call("POST", "/scores", key=reader, json=body).status_code == 202
    assert submit(api, target={"repo": "a/b"}).json()["code"] == "invalid_recipe"
    assert submit(api, base={"repo": f"{api.user}/none"}).json()["code"] == "repo_not_found"


def test_a_merge_that_names_a_scoring_is_pinned_to_what_was_scored(api):
    scoring = submit(api).json()
    early = api.submit(api.recipe(scores=scoring["id"]))
    assert (early.status_code, early.json()["errors"][0]["pointer"]) == (422, "/scores")
    finish(api, scoring["id"], Status.SUCCEEDED)
    api.push("adapted", checkpoint(shards=2, seed=9))
    merge = api.submit(api.recipe(scores=scoring["id"])).json()
    assert merge["resolved"]["experts"] == scoring["resolved"]["experts"]
    other = api.submit(api.recipe(scores=scoring["id"], experts=[{"repo": f"{api.user}/base"}]))
    assert other.status_code == 422


def test_a_scoring_of_somebody_else_cannot_be_named(api):
    scoring = submit(api).json()
    finish(api, scoring["id"], Status.SUCCEEDED)
    stranger = api.new_key("stranger", grants=[api.user])
    answer = api.submit(api.recipe(scores=scoring["id"]), key=stranger)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
