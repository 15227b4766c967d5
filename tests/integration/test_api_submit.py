"""POST /merges: what is accepted, and each refusal with its code and the name at fault, before anything is queued."""

import base64
import json
import time

import pytest

from tests.fixtures.checkpoints import CONFIG, TENSORS, VOCABULARY, checkpoint

Q = "model.layers.0.self_attn.q_proj.weight"


def test_an_accepted_merge(api):
    answer = api.submit(api.recipe(labels={"team": "risk"}))
    job = answer.json()
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/merges/{job['id']}" == job["links"]["self"]
    assert int(answer.headers["Retry-After"]) > 0
    assert (job["status"], job["attempt"]) == ("queued", 0)
    assert job["stage"] is job["progress"] is job["result"] is job["error"] is None
    assert job["recipe"]["method"]["policy"] == "balanced"
    for pinned in (job["resolved"]["base"], *job["resolved"]["experts"]):
        assert len(pinned["commit"]) == 40
    fields = "id status stage stages progress recipe resolved result error attempt retry_of created_at ended_at links"
    assert set(fields.split()) <= set(job)


def test_no_weight_is_downloaded_before_queueing(api):
    assert api.submit().status_code == 202
    weights = [r for r in api.hub.requests() if r["path"].endswith(".safetensors") and r["method"] == "GET"]
    assert weights
    assert all(request["range"] for request in weights)
    assert sum(request["bytes"] for request in weights) < 4000


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"method": {"name": "spear", "fraction": 1.5}}, "/method/fraction"),
        ({"method": {"name": "spear", "unknown": 1}}, "/method/unknown"),
        ({"method": {"name": "magic"}}, "/method"),
        ({"experts": []}, "/experts"),
        ({"experts": [{"repo": "no-namespace"}]}, "/experts/0/repo"),
        ({"base": {"repo": "a/b", "revision": "../x"}}, "/base/revision"),
        ({"surprise": 1}, "/surprise"),
        ({"output": {"dtype": "int4"}}, "/output/dtype"),
        ({"evaluation": {"limit": 3}}, "/evaluation"),
        ({"webhook": "ftp://example.org"}, "/webhook/url"),
        ({"labels": {"": "x"}}, "/labels//[key]"),
        ({"method": {"name": "spear", "policy": "aggressive", "fraction": 0.5}}, "/method"),
        ({"method": {"name": "spear", "t": "0.5"}}, "/method/t"),
        ({"method": {"name": "spear", "t": True}}, "/method/t"),
        ({"method": {"name": "spear", "head": "yes"}}, "/method/head"),
        ({"method": {"name": "linear", "normalize": 1}}, "/method/normalize"),
        ({"method": {"name": "dare_linear", "density": 0.5, "seed": "3"}}, "/method/seed"),
        ({"experts": [{"repo": "o/e", "weight": "1"}], "method": {"name": "linear"}}, "/experts/0/weight"),
        ({"method": {"name": "linear", "weight": [{"value": "1"}]}}, "/method/weight/0/value"),
    ],
)
def test_a_malformed_recipe_is_refused_with_a_pointer(api, body, pointer):
    answer = api.submit(api.recipe(**body))
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "invalid_recipe")
    assert answer.headers["content-type"] == "application/problem+json"
    assert pointer in [error["pointer"] for error in problem["errors"]]
    assert not api.hub.requests()


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("field", ["t", "weights"])
def test_a_number_that_is_none_is_refused_not_a_broken_database(api, number, field):
    method = {"name": "spear", field: "HERE"} if field == "t" else {"name": "spear", field: {"snr": "HERE"}}
    answer = api.call(
        "POST", "/merges", content=json.dumps(api.recipe(method=method)).replace('"HERE"', number),
        headers={"content-type": "application/json"},
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_recipe")


@pytest.mark.parametrize(
    "method",
    [
        *({"name": "spear", field: ["\ud800"]} for field in ("modules", "include", "exclude", "freeze", "show")),
        {"name": "spear", "restore": [{"patterns": ["\ud800"], "t": 0}]},
        {"name": "linear", "weight": [{"filter": "\ud800", "value": 1}]}, {"name": "\ud800"},
    ],
)
def test_half_a_character_is_refused_not_a_broken_database(api, method):
    answer = api.call(
        "POST", "/merges", content=json.dumps(api.recipe(method=method)), headers={"content-type": "application/json"}
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_recipe")


def test_a_body_that_is_not_json(api):
    answer = api.call("POST", "/merges", content=b"{", headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


@pytest.mark.parametrize("nul", ["\x00", "a\x00b"])
def test_a_nul_character_is_a_bad_request_not_a_broken_database(api, nul):
    for answer in (
        api.submit(api.recipe(labels={"a": nul})), api.submit(api.recipe(labels={nul: "a"})),
        api.call("GET", "/merges/%00"), api.call("GET", "/merges?target=%00"), api.call("GET", "/merges?label=a:%00"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert api.submit(api.recipe(labels={"a": "\\u0000"})).status_code == 202


def test_a_body_that_is_too_large(api):
    for body in (b"x" * 20_000, iter([b"x" * 6_000] * 3)):
        answer = api.call("POST", "/merges", content=body, headers={"content-type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (413, "request_too_large")


CASES = {
    "missing tensor": (
        {"tensors": {name: spec for name, spec in TENSORS.items() if name != Q}}, "tensor_missing", {"tensor": Q}
    ),
    "other shape": ({"tensors": TENSORS | {Q: ("BF16", (8, 4))}}, "shape_mismatch", {"tensor": Q}),
    "other architecture": (
        {"config": CONFIG | {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}}, "architecture_mismatch", {}
    ),
    "other vocabulary": ({"vocabulary": VOCABULARY | {"t3": 4, "t4": 3}}, "vocabulary_mismatch", {}),
    "untied head": (
        {"config": CONFIG | {"tie_word_embeddings": False}, "tensors": TENSORS | {"lm_head.weight": ("BF16", (10, 8))}},
        "tied_head_mismatch", {},
    ),
    "quantised": ({"config": CONFIG | {"quantization_config": {"quant_method": "gptq"}}}, "quantized_weights", {}),
    "code of its own": ({"config": CONFIG | {"auto_map": {"AutoModel": "x.Y"}}}, "remote_code", {}),
    "fp8 weights": ({"tensors": TENSORS | {Q: ("F8_E4M3", (8, 8))}}, "quantized_weights", {"tensor": Q}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_checkpoints_that_do_not_fit_are_refused_by_name(api, case):
    changes, code, names = CASES[case]
    repo = api.push("odd", checkpoint(**changes))
    answer = api.submit(api.recipe(experts=[{"repo": repo}]))
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, code), problem
    assert problem["names"]["repo"] == repo
    assert names.items() <= problem["names"].items()
    assert problem["errors"][0]["pointer"] == "/experts/0/repo"
    assert repo in problem["detail"]
    assert api.call("GET", "/merges").json()["data"] == []


def test_a_repository_with_pickles_only(api):
    files = checkpoint()
    repo = api.push("pickles", {"config.json": files["config.json"], "pytorch_model.bin": b"x"})
    problem = api.submit(api.recipe(base={"repo": repo})).json()
    assert (problem["code"], problem["names"]["files"]) == ("pickle_only", ["pytorch_model.bin"])
    assert problem["errors"][0]["pointer"] == "/base/repo"


def test_a_shard_that_is_cut_short(api):
    files = checkpoint(shards=2)
    name = "model-00002-of-00002.safetensors"
    repo = api.push("cut", files | {name: files[name][:-10]})
    problem = api.submit(api.recipe(base={"repo": repo})).json()
    assert (problem["code"], problem["names"]["file"]) == ("header_invalid", name)


def test_what_is_not_there(api):
    missing = api.submit(api.recipe(base={"repo": f"{api.user}/nothing"}))
    assert (missing.status_code, missing.json()["code"]) == (422, "repo_not_found")
    assert f"{api.user}/nothing" in missing.json()["detail"]
    revision = api.submit(api.recipe(base={"repo": f"{api.user}/base", "revision": "v9"}))
    assert (revision.status_code, revision.json()["code"]) == (422, "revision_not_found")
    assert revision.json()["errors"][0]["pointer"] == "/base/revision"


def test_a_private_repository_of_somebody_else_and_one_that_is_missing_look_the_same(api):
    other, token = api.hub.fresh_user()
    api.hub.api(token).create_repo(f"{other}/secret", private=True)
    answers = [api.submit(api.recipe(base={"repo": f"{other}/{name}"})) for name in ("secret", "absent")]
    assert [answer.status_code for answer in answers] == [403, 403]
    details = [answer.json() for answer in answers]
    assert {detail["code"] for detail in details} == {"read_not_granted"}
    assert details[0]["detail"].replace("secret", "absent") == details[1]["detail"]


def test_a_key_cannot_borrow_the_services_access(api):
    """The service's token can read the namespace; a key without the grant cannot make it do so."""
    poor = api.new_key("poor")
    answer = api.submit(api.recipe(), key=poor)
    assert (answer.status_code, answer.json()["code"]) == (403, "write_not_granted")
    writer = api.services.keys.create(name="w", scopes=("merges:write",), writes=[api.user])
    answer = api.submit(api.recipe(), key=writer)
    assert (answer.status_code, answer.json()["code"]) == (403, "read_not_granted")


def test_what_is_public_needs_no_grant_to_read(api):
    other, token = api.hub.fresh_user()
    hub = api.hub.api(token)
    from tests.fixtures.checkpoints import push

    push(hub, f"{other}/open", checkpoint(seed=5), private=False)
    assert api.submit(api.recipe(base={"repo": f"{other}/open"})).status_code == 202


def test_a_gated_repository(api):
    other, token = api.hub.fresh_user()
    hub = api.hub.api(token)
    from tests.fixtures.checkpoints import push

    push(hub, f"{other}/gated", checkpoint(seed=5), private=False)
    hub.update_repo_settings(f"{other}/gated", gated="manual")
    answer = api.submit(api.recipe(base={"repo": f"{other}/gated"}))
    assert (answer.status_code, answer.json()["code"]) == (403, "repo_gated")


def test_a_target_that_cannot_be_written(api):
    other, _ = api.hub.fresh_user()
    answer = api.submit(api.recipe(target={"repo": f"{other}/mine"}))
    assert (answer.status_code, answer.json()["code"]) == (403, "write_not_granted")
    both = api.services.keys.create(name="both", scopes=("merges:write",), reads=[api.user], writes=[other])
    answer = api.submit(api.recipe(target={"repo": f"{other}/mine"}), key=both)
    assert (answer.status_code, answer.json()["code"]) == (403, "target_not_writable")


def test_a_busy_target_names_the_other_job(api):
    first = api.submit().json()
    answer = api.submit()
    assert (answer.status_code, answer.json()["code"]) == (409, "target_busy")
    assert answer.json()["names"]["job"] == first["id"]
    assert api.submit(api.recipe(target={"repo": f"{api.user}/target", "branch": "dev"})).status_code == 202


def test_a_hub_that_does_not_answer_is_a_503_and_nothing_is_queued(api):
    api.hub.fault("status", path="/api/models", status=503, times=None)
    answer = api.submit()
    assert (answer.status_code, answer.json()["code"]) == (503, "hub_unavailable")
    assert answer.headers["Retry-After"]
    assert api.call("GET", "/merges").json()["data"] == []


def test_a_plan_tells_that_the_target_is_busy(api):
    job = api.submit().json()
    plan = api.call("POST", "/merges/plan", json=api.recipe()).json()
    assert (plan["accepted"], plan["refusals"][0]["code"]) == (False, "target_busy")
    assert plan["refusals"][0]["names"]["job"] == job["id"]


def test_a_slow_hub_leaves_the_rest_of_the_api_alone(api):
    """More callers than turns, while the Hub sleeps: those without a turn are told at once, readers are served."""
    from concurrent.futures import ThreadPoolExecutor

    api.hub.fault("slow", path="/api/models", times=None, delay=3)
    with ThreadPoolExecutor(24) as pool:
        plans = [pool.submit(api.call, "POST", "/merges/plan", json=api.recipe()) for _ in range(24)]
        time.sleep(1.5)
        began = time.monotonic()
        assert api.call("GET", "/merges").status_code == 200
        assert api.call("GET", "/readyz").status_code == 200
        assert time.monotonic() - began < 2
        api.hub.clear_faults()
        answers = [plan.result() for plan in plans]
    refused = [answer for answer in answers if answer.status_code == 503]
    assert 24 - 2 * 8 <= len(refused) < 24
    assert {answer.json()["code"] for answer in refused} == {"not_ready"}
    assert all(answer.headers["Retry-After"] for answer in refused)


def test_an_idempotency_key_quoted_or_bare_makes_one_job(api):
    answers = [api.submit(headers={"Idempotency-Key": key}) for key in ("abc", '"abc"', "abc")]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert [answer.headers.get("Idempotent-Replayed") for answer in answers] == [None, "true", "true"]
    other = api.submit(api.recipe(labels={"a": "b"}), headers={"Idempotency-Key": "abc"})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    for bad in ("", "x" * 300, "a b"):
        answer = api.submit(headers={"Idempotency-Key": bad})
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


def test_the_plan_says_what_would_happen_and_queues_nothing(api):
    plan = api.call("POST", "/merges/plan", json=api.recipe()).json()
    assert plan["accepted"]
    assert plan["tensors"] == len(TENSORS)
    assert plan["output_bytes"] == 2 * sum(a * b for _, (a, *rest) in TENSORS.values() for b in (rest or [1]))
    assert plan["bytes_to_download"] > plan["output_bytes"]
    assert plan["resolved"]["base"]["commit"]
    assert plan["peak_memory_bytes"] > 0
    refused = api.call("POST", "/merges/plan", json=api.recipe(base={"repo": f"{api.user}/nothing"})).json()
    assert (refused["accepted"], refused["refusals"][0]["code"]) == (False, "repo_not_found")
    assert api.call("GET", "/merges").json()["data"] == []


def test_the_job_is_committed_before_the_answer_leaves(api):
    """Read with another connection at the moment when the first byte of the answer is sent."""
    from app.jobs.database import Database

    seen = []
    database = Database(api.services.settings.database_url, pool_size=1)

    def spying(app):
        async def run(scope, receive, send):
            async def watch(message):
                if message["type"] == "http.response.start":
                    with database.transaction() as session:
                        seen.append(session.connection().exec_driver_sql("SELECT count(*) FROM jobs").scalar())
                await send(message)

            await app(scope, receive, watch)

        return run

    api.http.app = spying(api.http.app)
    api.http._transport.app = api.http.app
    assert api.submit().status_code == 202
    database.close()
    assert seen == [1]


def test_only_the_jobs_id_goes_over_the_broker(api):
    from redis import Redis

    job = api.submit().json()
    with Redis.from_url(api.services.settings.redis_url) as redis:
        (message,) = redis.lrange("celery", 0, -1)
    args, options, _ = json.loads(base64.b64decode(json.loads(message)["body"]))
    assert (args, options) == ([job["id"]], {})
    assert api.user not in str(message)
