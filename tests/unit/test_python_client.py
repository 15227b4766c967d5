"""The Python client against a server that is away, slow, limited and wrong; sync and async alike."""

import asyncio
import subprocess
import sys
import time

import httpx2
import pytest

from app.client import (
    ApiError,
    AsyncClient,
    Client,
    ConflictError,
    DeniedError,
    InvalidError,
    LimitedError,
    NotFoundError,
    UnauthenticatedError,
    UnavailableError,
    calls,
)
from tests.fixtures.scripted import Script, playing


@pytest.fixture
def script():
    made = Script()
    with playing(made):
        yield made


def job(status: str = "running", **more) -> dict:
    return {"id": "mrg_1", "status": status} | more


def both(script: Script, name: str, *values, **options):
    """The call by both clients, over the same answers twice; what it gave, which has to be equal."""
    answers, results = list(script.answers), []
    with Client(script.url, "k") as client:
        results.append(_outcome(lambda: getattr(client, name)(*values, **options)))
    script.answers = answers

    async def call():
        async with AsyncClient(script.url, "k") as client:
            return await getattr(client, name)(*values, **options)

    results.append(_outcome(lambda: asyncio.run(call())))
    assert repr(results[0]) == repr(results[1])
    return results[0]


def _outcome(call):
    try:
        return call()
    except (ApiError, httpx2.TransportError) as error:
        return error


def test_one_idempotency_key_goes_with_every_repetition(script):
    soon = {"Retry-After": "0"}, {"code": "not_ready"}
    script.answers = [None, (503, *soon), (429, *soon), (202, {}, job())]
    assert both(script, "submit", {"a": 1}) == job()
    keys = [headers["idempotency-key"] for _, _, headers, _ in script.seen]
    assert len(set(keys[:4])) == len(set(keys[4:])) == 1
    assert keys[0] != keys[4]
    assert {body for *_, body in script.seen} == {b'{"a":1}'}


def test_a_key_of_the_callers_own_is_used(script):
    script.answers = [(202, {}, job())]
    both(script, "retry", "mrg_1", idempotency_key="mine")
    assert {headers["idempotency-key"] for _, _, headers, _ in script.seen} == {"mine"}


@pytest.mark.parametrize(("name", "value"), [("submit", {}), ("score", {}), ("evaluate", {}), ("retry", "mrg_1")])
def test_a_hub_token_goes_with_its_one_job_only(script, name, value):
    script.answers = [(503, {"Retry-After": "0"}, {}), (202, {}, job())]
    both(script, name, value, hub_token="hf_mine")
    assert [headers.get("x-hub-token") for _, _, headers, _ in script.seen] == ["hf_mine"] * 4
    script.answers = [(200, {}, job())]
    both(script, "get", "mrg_1")
    assert "x-hub-token" not in script.seen[-1][2]
    assert "hf_mine" not in repr(calls.submit("/merges", {}, key=None, hub_token="hf_mine"))


def test_retry_after_is_heeded(script):
    script.answers = [(503, {"Retry-After": "1"}, {}), (200, {}, job())]
    started = time.monotonic()
    with Client(script.url, "k") as client:
        client.get("mrg_1")
    assert 1.0 <= time.monotonic() - started < 2.5


def test_a_limit_that_ends_much_later_is_told_and_not_slept_through(script):
    script.answers = [(429, {"Retry-After": "3600"}, {"code": "rate_limited", "detail": "slow down"})]
    error = both(script, "get", "mrg_1")
    assert isinstance(error, LimitedError)
    assert error.code == "rate_limited"


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, InvalidError), (422, InvalidError), (401, UnauthenticatedError), (403, DeniedError), (404, NotFoundError),
     (409, ConflictError), (500, UnavailableError), (418, ApiError)],
)  # fmt: skip
def test_errors_are_told_apart_by_kind_and_code(script, status, kind):
    body = {
        "code": "some_code", "detail": "why", "request_id": "r", "retryable": True,
        "errors": [{"pointer": "/a", "detail": "b"}],
    }
    script.answers = [(status, {}, body)]
    error = both(script, "get", "mrg_1")
    assert type(error) is kind
    assert (error.code, str(error), error.request_id, error.retryable) == ("some_code", "why", "r", True)
    assert error.errors == [{"pointer": "/a", "detail": "b"}]


@pytest.mark.parametrize("body", [b"<html>", b"[1]", b"\xff\xfe", b""])
def test_an_answer_that_is_no_problem_is_an_error_all_the_same(script, body):
    script.answers = [(500, {}, body)]
    error = both(script, "get", "mrg_1")
    assert (error.status, error.code, error.errors) == (500, "unknown", [])


def test_nobody_there(script):
    with Client("http://127.0.0.1:9", "k") as client, pytest.MonkeyPatch.context() as patch:
        slept = []
        patch.setattr(time, "sleep", slept.append)
        with pytest.raises(httpx2.ConnectError):
            client.get("mrg_1")
    assert len(slept) == 4
    assert slept == sorted(slept)


def test_waiting_holds_for_changes_and_tells_each(script):
    script.answers = [
        (200, {"ETag": 'W/"1"'}, job("queued")), (304, {}, None), (200, {"ETag": 'W/"2"'}, job()),
        (200, {"ETag": 'W/"3"'}, job("succeeded")),
    ]
    told = []
    assert both(script, "wait", "mrg_1", progress=lambda job: told.append(job["status"]))["status"] == "succeeded"
    assert told == ["queued", "running", "succeeded"] * 2
    asked = [(headers.get("prefer"), headers.get("if-none-match")) for _, _, headers, _ in script.seen[:4]]
    assert asked == [(None, None), ("wait=15", 'W/"1"'), ("wait=15", 'W/"1"'), ("wait=15", 'W/"2"')]


def test_lists_go_on_page_by_page(script):
    pages = [
        (200, {}, {"data": [job(number=1), job(number=2)], "next_cursor": "c"}),
        (200, {}, {"data": [job(number=3)], "next_cursor": None}),
    ]
    script.answers = list(pages)
    with Client(script.url, "k") as client:
        assert [one["number"] for one in client.merges(status=["failed"], label="a:b")] == [1, 2, 3]
    script.answers = list(pages)

    async def collect():
        async with AsyncClient(script.url, "k") as client:
            return [one["number"] async for one in client.merges(status=["failed"], label="a:b")]

    assert asyncio.run(collect()) == [1, 2, 3]
    paths = [path for _, path, _, _ in script.seen]
    assert paths == ["/merges?status=failed&label=a%3Ab", "/merges?status=failed&label=a%3Ab&cursor=c"] * 2


def test_ids_cannot_leave_their_path(script):
    script.answers = [(404, {}, {})]
    both(script, "get", "../keys?x=/#")
    assert script.seen[0][1] == "/merges/..%2Fkeys%3Fx%3D%2F%23"


def test_it_needs_neither_torch_nor_the_services_libraries():
    code = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        allowed = ("app", "httpx2", "httpcore2", "h11", "anyio", "certifi", "idna", "sniffio", "typing_extensions",
                   "h2", "truststore")
        if name.partition(".")[0] not in sys.stdlib_module_names and name.partition(".")[0] not in allowed:
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
import app.client
made = app.client.Client("http://127.0.0.1:9", "k"); made.close()
assert "torch" not in sys.modules and "sqlalchemy" not in sys.modules and "fastapi" not in sys.modules
"""
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
