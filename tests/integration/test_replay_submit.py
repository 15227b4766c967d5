"""A recipe that takes over the decisions of a published merge: what is accepted, and each refusal with its pointer."""

import json
from typing import Any

import pytest

from app.errors import SpearError
from app.recipes import parse_recipe

Q = "model.layers.0.self_attn.q_proj.weight"


def publish(api, name: str, *, pinned: dict[str, Any], t: float = 0.5, tensor: str = Q, method: str = "spear") -> str:
    """A repository with the manifest of a merge of these commits; its commit."""
    inputs = [
        {"repo": one["repo"], "commit": one["commit"], "license": None, "files": {}}
        for one in (pinned["base"], *pinned["experts"])
    ]
    manifest = {
        "schema_version": 1, "job_id": "mrg_1", "recipe": {"method": {"name": method}}, "inputs": inputs, "engine": {},
        "operations": {"slerp": 1}, "decisions": [{"name": tensor, "operation": "slerp", "t": t}], "outputs": {},
    }  # fmt: skip
    repo = api.push(name, {"merge_manifest.json": json.dumps(manifest).encode()})
    return str(api.hub.api(api.token).model_info(repo).sha)


@pytest.fixture
def pinned(api) -> dict[str, Any]:
    """What the pair's revisions mean now."""
    return api.call("POST", "/merges/plan", json=api.recipe()).json()["resolved"]


def replay(api, name: str, commit: str) -> dict[str, Any]:
    return {"repo": f"{api.user}/{name}", "revision": commit}


def test_decisions_of_the_same_commits_are_taken(api, pinned):
    commit = publish(api, "done", pinned=pinned)
    answer = api.submit(api.recipe(replay=replay(api, "done", commit)))
    assert answer.status_code == 202, answer.text
    assert answer.json()["recipe"]["replay"] == replay(api, "done", commit)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"t": 2.5}, "decides on"),
        ({"tensor": "model.nothing"}, "decides on 'model.nothing'"),
        ({"method": "linear"}, "has no decisions"),
    ],
)
def test_decisions_that_cannot_be_are_refused(api, pinned, changes, said):
    commit = publish(api, "odd", pinned=pinned, **changes)
    problem = api.submit(api.recipe(replay=replay(api, "odd", commit))).json()
    assert (problem["code"], problem["errors"][0]["pointer"]) == ("invalid_recipe", "/replay")
    assert said in problem["detail"]


def test_decisions_of_other_commits_are_refused(api, pinned):
    other = {**pinned, "experts": [{**pinned["experts"][0], "commit": "e" * 40}]}
    commit = publish(api, "other", pinned=other)
    problem = api.submit(api.recipe(replay=replay(api, "other", commit))).json()
    assert (problem["code"], problem["errors"][0]["pointer"]) == ("invalid_recipe", "/replay")
    assert "this recipe is not" in problem["detail"]


def test_what_is_no_published_merge_is_refused(api, pinned):
    base = pinned["base"]["commit"]
    problem = api.submit(api.recipe(replay=replay(api, "base", base))).json()
    assert (problem["code"], problem["errors"][0]["pointer"]) == ("invalid_recipe", "/replay")
    assert "no merge_manifest.json" in problem["detail"]


def test_a_manifest_of_somebody_else_is_not_read(api, pinned):
    commit = publish(api, "secret", pinned=pinned)
    stranger = api.hub.fresh_user("stranger")[0]
    key = api.services.keys.create(
        name="narrow", scopes=("merges:write",), reads=(f"{api.user}/base", f"{api.user}/adapted", stranger),
        writes=(f"{api.user}/target",),
    )  # fmt: skip
    problem = api.submit(api.recipe(replay=replay(api, "secret", commit)), key=key).json()
    assert (problem["code"], problem["errors"][0]["pointer"]) == ("read_not_granted", "/replay")


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"replay": {"repo": "a/b", "revision": "main"}}, "/replay/revision"),
        ({"replay": {"repo": "a/b", "revision": "a" * 40}, "method": {"name": "linear"}}, ""),
    ],
)
def test_a_replay_needs_a_commit_and_a_method_that_decides(api, changes, pointer):
    problem = api.submit(api.recipe(**changes)).json()
    assert problem["code"] == "invalid_recipe"
    assert pointer in [error["pointer"] for error in problem["errors"]]
    assert not api.hub.requests()


def test_a_replayed_search_needs_nothing_to_search_on():
    body = {
        "base": {"repo": "a/base"}, "experts": [{"repo": "a/expert"}], "method": {"name": "spear", "policy": "auto"},
        "target": {"repo": "a/target"},
    }  # fmt: skip
    with pytest.raises(SpearError, match="calibration"):
        parse_recipe(body)
    replayed = parse_recipe(body | {"replay": {"repo": "a/done", "revision": "a" * 40}})
    assert replayed.evaluation is None
