"""The confused deputy: the service's account can read private models; a key without the grant cannot make it do so.

Each attack names a private repository of `victim` in another field. 0 of them may succeed, and none may make the
service ask the Hub for anything of the private repositories with its own credential.
"""

import http.server
import json
import threading
from contextlib import contextmanager
from functools import partial

import httpx2
import pytest

from app.errors import Code, SpearError
from app.hub.access import check_read, check_write
from app.hub.client import Hub
from app.recipes import Target
from tests.fixtures.adapters_of_bytes import lora
from tests.fixtures.api import Api
from tests.fixtures.checkpoints import checkpoint, push


class Theft:
    """A thief with public models of its own, a place to publish, and no grant for the victim's `base` and `adapted`."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.me, token = api.hub.fresh_user("thief")
        hub = api.hub.api(token)
        for name, seed in (("base", 7), ("adapted", 8)):
            push(hub, f"{self.me}/{name}", checkpoint(seed=seed))
        push(hub, f"{self.me}/adapter", lora(base=f"{api.user}/base"))
        theirs, sets = api.hub.api(api.token), {"repo_id": f"{api.user}/sets", "repo_type": "dataset"}
        theirs.create_repo(**sets, private=True)
        theirs.upload_file(path_or_fileobj=b'{"text": "a"}\n', path_in_repo="x.jsonl", **sets)
        self.token = token
        self.private = f"{api.user}/base"
        self.commit = api.hub.api(api.token).model_info(self.private).sha
        self.key = api.services.keys.create(
            name="thief", scopes=("merges:read", "merges:write"), writes=[f"{api.user}/loot"]
        )

    def recipe(self, **changes) -> dict:
        return {
            "base": {"repo": f"{self.me}/base"}, "experts": [{"repo": f"{self.me}/adapted"}],
            "method": {"name": "spear"}, "target": {"repo": f"{self.api.user}/loot"},
        } | changes  # fmt: skip

    def post(self, path: str, body: dict | None = None, **headers: str):
        return self.api.call("POST", path, key=self.key, json=body, headers=headers)


@pytest.fixture
def theft(api: Api) -> Theft:
    return Theft(api)


def attacks(theft: Theft):
    """Each attack by its name: the answer that it got."""
    api, private = theft.api, {"repo": theft.private}
    victim_job = api.submit(headers={"Idempotency-Key": "shared"}).json()["id"]
    victim_scoring = api.call("POST", "/scores", json={
        "base": private, "experts": [{"repo": f"{api.user}/adapted"}], "method": {"name": "spear"}
    }).json()["id"]  # fmt: skip
    assert api.call("POST", f"/merges/{victim_job}/cancel").status_code == 202
    api.hub.clear_requests()
    yaml = "merge_method: linear\nbase_model: {0}\nmodels:\n  - model: {1}\n    parameters: {{weight: 1}}\n"
    target = {"repo": f"{api.user}/loot"}
    scoring = {"base": private, "experts": [{"repo": f"{theft.me}/adapted"}], "method": {"name": "spear"}}
    task = {"name": "x", "kind": "perplexity", "repo": theft.private, "path": "x.jsonl"}
    evaluation, secret = {"domain": [task]}, {"domain": [task | {"repo": f"{api.user}/sets"}]}
    mine = {"domain": [{"name": "y", "kind": "perplexity", "repo": f"{theft.me}/base", "path": "y.jsonl"}]}
    post, recipe = theft.post, theft.recipe
    yield "base", post("/merges", recipe(base=private))
    yield "expert", post("/merges", recipe(experts=[private]))
    yield "base in other letters", post("/merges", recipe(base={"repo": theft.private.upper()}))
    yield "cached file by commit", post("/merges", recipe(base=private | {"revision": theft.commit}))
    yield "tokenizer source", post("/merges", recipe(tokenizer_source=theft.private))
    yield "evaluation file", post("/merges", recipe(evaluation=evaluation))
    yield "calibration file", post("/merges", recipe(evaluation=mine | {"calibration": evaluation}))
    yield "evaluation set", post("/merges", recipe(evaluation=secret))
    yield "model to measure", post("/evaluations", {"models": [private], "evaluation": mine})
    yield "file to measure by", post("/evaluations", {"models": [{"repo": f"{theft.me}/base"}], "evaluation": secret})
    yield "named scores", post("/merges", recipe(scores=victim_scoring))
    yield "named scores, own repos named", post("/merges", recipe(base=private, scores=victim_scoring))
    yield "retry of another's job", post(f"/merges/{victim_job}/retry")
    yield "replayed idempotency key", post("/merges", api.recipe(target=target), **{"Idempotency-Key": "shared"})
    for what, base, model in (
        ("base", theft.private, f"{theft.me}/base"), ("model", f"{theft.me}/base", theft.private),
        ("adapter", f"{theft.me}/base", f"{theft.me}/base+{theft.private}"),
    ):  # fmt: skip
        yield f"mergekit, {what}", post("/merges", {"mergekit": yaml.format(base, model), "target": target})
    yield "scoring", post("/scores", scoring)
    yield "with a token of its own", post("/merges", recipe(base=private), **{"X-Hub-Token": theft.token})
    yield "with the victim's own token", post("/merges", recipe(base=private), **{"X-Hub-Token": api.token})
    yield "writing over a model", post("/merges", recipe(target=private))
    yield "writing beside it", post("/merges", recipe(target={"repo": f"{api.user}/loot2"}))


def asked_privately(api: Api, repos: tuple[str, ...]) -> list[str]:
    """What the Hub was asked of these repositories and answered: an anonymous look that is refused is none of it."""
    return [
        one["path"] for one in api.hub.requests()
        if any(f"/{repo}/" in f"{one['path']}/" for repo in repos) and one["status"] < 400
    ]  # fmt: skip


def test_no_field_makes_the_service_read_for_a_stranger(theft):
    api = theft.api
    answers = dict(attacks(theft))
    succeeded = {name: answer.text for name, answer in answers.items() if answer.status_code < 400}
    assert succeeded == {}
    assert len(answers) == 22
    assert asked_privately(api, (f"{api.user}/base", f"{api.user}/adapted", f"{api.user}/sets")) == []
    denied = [answers[name].json()["code"] for name in ("evaluation file", "evaluation set", "model to measure")]
    assert denied == ["read_not_granted"] * 3
    leaked = [name for name, answer in answers.items() if theft.commit in answer.text.replace(theft.commit, "", 1)
              and name != "cached file by commit"]  # fmt: skip
    assert leaked == []
    assert api.call("GET", "/merges", key=theft.key).json()["data"] == []


def test_an_adapters_word_on_its_base_is_only_a_word(theft):
    """The adapter says that it was made from the victim's model: it is applied to the base that the recipe names."""
    api = theft.api
    api.hub.clear_requests()
    answer = theft.post("/merges", theft.recipe(experts=[{"repo": f"{theft.me}/adapter"}]))
    assert answer.status_code == 202, answer.text
    assert asked_privately(api, (f"{api.user}/base",)) == []
    repos = {pinned["repo"] for pinned in (answer.json()["resolved"]["base"], *answer.json()["resolved"]["experts"])}
    assert repos == {f"{theft.me}/base", f"{theft.me}/adapter"}


def test_a_plan_says_no_more_than_a_refusal(theft):
    plans = [
        theft.post("/merges/plan", theft.recipe(base={"repo": repo})).json()
        for repo in (theft.private, f"{theft.api.user}/none")
    ]
    assert [plan["refusals"][0]["code"] for plan in plans] == ["read_not_granted"] * 2
    assert json.dumps(plans[0]).replace(theft.private, f"{theft.api.user}/none") == json.dumps(plans[1])


@contextmanager
def leading_on(endpoint: str, *, old: str, new: str):
    """An endpoint before the Hub's that leads on from an old name, as the real Hub does after a move."""

    class Door(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if f"/{old}/" in f"{self.path.partition('?')[0]}/":
                self.answer(307, {"Location": self.path.replace(f"/{old}", f"/{new}", 1)}, b"")
                return
            sent = {"Authorization": self.headers["Authorization"]} if self.headers["Authorization"] else {}
            reply = httpx2.get(endpoint + self.path, headers=sent)
            kept = {name: value for name, value in reply.headers.items() if name.startswith(("content-type", "x-"))}
            self.answer(reply.status_code, kept, reply.content)

        def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Door) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_repository_that_was_moved_away_is_not_covered_by_its_old_name(theft):
    """The grant is for the old name; the Hub leads on to what is the victim's private model today."""
    api = theft.api
    old, new = f"{theft.me}/once-mine", theft.private
    with leading_on(api.hub.endpoint, old=old, new=new) as endpoint:
        anonymous, service = (Hub(endpoint, token, timeout_seconds=5) for token in (None, api.token))
        for grants, refused in (([old], True), ([theft.me], True), ([theft.me, api.user], None)):
            read = partial(check_read, old, anonymous=anonymous, service=service, reads=grants)
            write = partial(check_write, Target(repo=old), service=service, writes=grants)
            assert [outcome(read), outcome(write)] == [refused, refused]


def outcome(check) -> bool | None:
    """None where it passes; else whether the refusal is for want of a grant, and silent about the present name."""
    try:
        check()
    except SpearError as error:
        return error.code in (Code.READ_NOT_GRANTED, Code.WRITE_NOT_GRANTED) and "base" not in error.message
    return None


def test_a_token_of_the_callers_own_is_used_and_grants_hold(api):
    """What the service's account cannot reach, the caller's token can, if the key is granted it."""
    me, token = api.hub.fresh_user("caller")
    for name, seed in (("base", 1), ("adapted", 2)):
        push(api.hub.api(token), f"{me}/{name}", checkpoint(seed=seed), private=True)
    recipe = api.recipe(
        base={"repo": f"{me}/base"}, experts=[{"repo": f"{me}/adapted"}], target={"repo": f"{me}/target"}
    )
    key = api.new_key("caller", grants=[me])
    assert api.submit(recipe, key=key).json()["code"] == "target_not_writable"
    answer = api.submit(recipe, key=key, headers={"X-Hub-Token": token})
    assert answer.status_code == 202
    assert token not in answer.text
    reader = api.hub.read_token(me)
    other = recipe | {"target": {"repo": f"{me}/other"}}
    assert api.submit(other, key=key, headers={"X-Hub-Token": reader}).json()["code"] == "target_not_writable"
    assert api.submit(other, key=api.key, headers={"X-Hub-Token": token}).json()["code"] == "write_not_granted"
    for wrong in ("hf_" + "x" * 600, "a b", ""):
        assert api.submit(other, key=key, headers={"X-Hub-Token": wrong}).json()["code"] == "invalid_request"


def test_a_busy_target_names_the_job_to_its_owner_only(api):
    job = api.submit().json()
    assert api.submit().json()["names"]["job"] == job["id"]
    beside = api.call("POST", "/merges", json=api.recipe(), key=api.new_key("beside", grants=[api.user]))
    assert (beside.status_code, beside.json()["code"]) == (409, "target_busy")
    assert job["id"] not in beside.text
    admin = api.new_key("admin", scopes=("admin",), grants=[api.user])
    assert api.call("POST", "/merges", json=api.recipe(), key=admin).json()["names"]["job"] == job["id"]
