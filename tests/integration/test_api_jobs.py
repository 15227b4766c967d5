"""Reading, listing, cancelling and retrying jobs; who may; problems and health."""

import threading
import time

import httpx2
import pytest

from app.jobs.leases import Lease, Leases
from app.jobs.states import Status


def finish(api, job_id: str, status: Status = Status.FAILED) -> None:
    """Let a worker's writes end the job."""
    leases = Leases(api.services.database, seconds=60)
    job = leases.claim(job_id, owner="w")
    lease = Lease(job_id=job_id, token=job.lease_token)
    error = {"code": "disk_full", "message": "full", "stage": "merging", "retryable": True, "hint": "", "names": {}}
    result = {"repo": "a/b", "commit": "0" * 40, "url": "http://x", "selected": 1, "scored": 2, "metrics": {}}
    leases.begin_stage(lease, "merging")
    failed = status is Status.FAILED
    documents = {"scores": {"data": [{"name": "w"}]}, "report": {"schema_version": 1}}
    outcome = {"error": error} if failed else {"result": result}
    leases.settle(lease, status, documents=documents, **outcome)


def test_a_job_with_its_etag(api):
    job = api.submit().json()
    first = api.call("GET", f"/merges/{job['id']}")
    tag = first.headers["ETag"]
    assert tag.startswith('W/"')
    assert first.headers["Retry-After"]
    for sent in (tag, f'"x", {tag}', tag.removeprefix("W/"), "*"):
        again = api.call("GET", f"/merges/{job['id']}", headers={"If-None-Match": sent})
        assert (again.status_code, again.content) == (304, b"")
    api.call("POST", f"/merges/{job['id']}/cancel")
    changed = api.call("GET", f"/merges/{job['id']}", headers={"If-None-Match": tag})
    assert (changed.status_code, changed.json()["status"]) == (200, "cancelled")


def test_prefer_wait_holds_until_the_next_change(api):
    job = api.submit().json()
    timer = threading.Timer(0.7, lambda: api.services.store.cancel(api.services.keys.find(api.key), job["id"]))
    timer.start()
    began = time.monotonic()
    answer = api.call("GET", f"/merges/{job['id']}", headers={"Prefer": "respond-async, wait=20"})
    timer.join()
    assert answer.json()["status"] == "cancelled"
    assert 0.4 < time.monotonic() - began < 10
    began = time.monotonic()
    api.call("GET", f"/merges/{job['id']}", headers={"Prefer": "wait=20"})
    assert time.monotonic() - began < 5


def test_a_list_goes_page_by_page(api):
    recipes = [api.recipe(target={"repo": f"{api.user}/t{i}"}, labels={"n": str(i)}) for i in range(3)]
    ids = [api.submit(recipe).json()["id"] for recipe in recipes]
    first = api.call("GET", "/merges?limit=2").json()
    second = api.call("GET", f"/merges?limit=2&cursor={first['next_cursor']}").json()
    assert [job["id"] for job in first["data"] + second["data"]] == ids[::-1]
    assert second["next_cursor"] is None
    assert [job["id"] for job in api.call("GET", "/merges?label=n:1").json()["data"]] == [ids[1]]
    assert [job["id"] for job in api.call("GET", f"/merges?target={api.user}/t2").json()["data"]] == [ids[2]]
    assert api.call("GET", "/merges?status=failed&status=running").json()["data"] == []


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "cursor=forged", "status=sleeping", "label=x"])
def test_bad_parameters_are_refused(api, query):
    answer = api.call("GET", f"/merges?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert answer.json()["errors"]


def test_a_cursor_of_another_list_is_refused(api):
    job = api.submit().json()
    cursor = api.call("GET", f"/merges/{job['id']}/events").json()["next_cursor"]
    assert api.call("GET", f"/merges?cursor={cursor}").status_code == 400


def test_cancel_and_retry(api):
    job = api.submit().json()
    refused = api.call("POST", f"/merges/{job['id']}/retry")
    assert (refused.status_code, refused.json()["code"]) == (409, "not_retryable")
    for _ in range(2):
        cancelled = api.call("POST", f"/merges/{job['id']}/cancel")
        assert (cancelled.status_code, cancelled.json()["status"]) == (202, "cancelled")
    retried = api.call("POST", f"/merges/{job['id']}/retry", headers={"Idempotency-Key": "again"})
    twice = api.call("POST", f"/merges/{job['id']}/retry", headers={"Idempotency-Key": "again"})
    assert (twice.json()["id"], twice.headers["Idempotent-Replayed"]) == (retried.json()["id"], "true")
    assert (retried.status_code, retried.json()["retry_of"]) == (202, job["id"])
    assert retried.headers["Location"] == f"/merges/{retried.json()['id']}"
    assert retried.json()["recipe"] == job["recipe"]
    finish(api, retried.json()["id"], Status.SUCCEEDED)
    late = api.call("POST", f"/merges/{retried.json()['id']}/cancel")
    assert (late.status_code, late.json()["code"]) == (409, "too_late")


def test_a_failed_job_shows_its_error_and_what_it_left(api):
    job_id = api.submit().json()["id"]
    early = api.call("GET", f"/merges/{job_id}/scores")
    assert (early.status_code, early.json()["code"]) == (404, "not_found")
    finish(api, job_id)
    job = api.call("GET", f"/merges/{job_id}").json()
    assert (job["status"], job["error"]["code"], job["error"]["stage"]) == ("failed", "disk_full", "merging")
    assert [stage["name"] for stage in job["stages"]] == ["merging"]
    assert api.call("GET", f"/merges/{job_id}/scores").json() == {"data": [{"name": "w"}]}
    assert api.call("GET", f"/merges/{job_id}/report").json() == {"schema_version": 1}
    events = api.call("GET", f"/merges/{job_id}/events?limit=2").json()
    rest = api.call("GET", f"/merges/{job_id}/events?cursor={events['next_cursor']}").json()
    assert [event["seq"] for event in events["data"] + rest["data"]] == [1, 2, 3, 4]
    assert rest["data"][-1]["type"] == "job.failed"


def test_events_as_a_stream_that_can_be_resumed(api):
    job_id = api.submit().json()["id"]
    timer = threading.Timer(0.7, lambda: finish(api, job_id))
    timer.start()
    with api.http.stream(
        "GET", f"/merges/{job_id}/events", headers={"Authorization": f"Bearer {api.key}", "Accept": "text/event-stream"}
    ) as answer:
        text = "".join(answer.iter_text())
    timer.join()
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert [line for line in text.splitlines() if line.startswith("id: ")] == ["id: 1", "id: 2", "id: 3", "id: 4"]
    assert "event: job.failed" in text
    rest = api.call("GET", f"/merges/{job_id}/events", headers={"Accept": "text/event-stream", "Last-Event-ID": "3"})
    assert [line for line in rest.text.splitlines() if line.startswith("id: ")] == ["id: 4"]
    bad = api.call("GET", f"/merges/{job_id}/events", headers={"Accept": "text/event-stream", "Last-Event-ID": "x"})
    assert (bad.status_code, bad.json()["code"]) == (400, "invalid_request")


def test_a_stream_ends_with_its_callers_key(api, live_url, monkeypatch):
    """Over a real socket; the job goes on, the revoked key hears no more of it."""
    monkeypatch.setattr("app.api.stream.KEY_SECONDS", 0.2)
    job_id = api.submit().json()["id"]
    key_id = api.services.keys.page(limit=1)[0].id
    headers = {"Authorization": f"Bearer {api.key}", "Accept": "text/event-stream"}
    with httpx2.stream("GET", f"{live_url}/merges/{job_id}/events", headers=headers, timeout=20) as answer:
        lines = answer.iter_lines()
        assert any("job.queued" in line for line in (next(lines), next(lines)))
        api.services.keys.revoke_one(key_id)
        started = time.monotonic()
        rest = list(lines)
    assert time.monotonic() - started < 10
    assert "job.failed" not in str(rest)
    assert httpx2.get(f"{live_url}/merges/{job_id}/events", headers=headers).status_code == 401


ROUTES = [
    ("GET", "/merges", "merges:read"), ("GET", "/merges/{id}", "merges:read"),
    ("GET", "/merges/{id}/events", "merges:read"), ("GET", "/merges/{id}/scores", "merges:read"),
    ("GET", "/merges/{id}/report", "merges:read"), ("POST", "/merges", "merges:write"),
    ("POST", "/merges/plan", "merges:write"), ("POST", "/merges/{id}/cancel", "merges:write"),
    ("POST", "/merges/{id}/retry", "merges:write"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "route", "scope"), ROUTES)
def test_every_route_wants_a_valid_key_with_its_scope(api, method, route, scope):
    job_id = api.submit().json()["id"]
    path = route.replace("{id}", job_id)
    body = {"json": api.recipe()} if method == "POST" and "{" not in route else {}
    assert api.http.request(method, path, **body).status_code == 401
    for wrong in ("Bearer spear_00000000_wrong", "Bearer x", "Bearer ", f"Basic {api.key}", api.key):
        assert api.http.request(method, path, headers={"Authorization": wrong}, **body).status_code == 401
    other = "merges:write" if scope == "merges:read" else "merges:read"
    lacking = api.call(method, path, key=api.new_key("lacking", scopes=(other,), grants=[api.user]), **body)
    assert (lacking.status_code, lacking.json()["code"]) == (403, "scope_missing")
    if "{id}" in route:
        stranger = api.call(method, path, key=api.new_key("stranger", grants=[api.user]))
        assert (stranger.status_code, stranger.json()["code"]) == (404, "not_found")


def test_problems_resolve_to_their_meaning(api):
    problem = api.call("GET", "/merges/mrg_nothing").json()
    assert (problem["status"], problem["code"]) == (404, "not_found")
    assert problem["request_id"].startswith("req_")
    assert api.http.get(problem["type"]).json()["code"] == "not_found"
    for method, path, status in (("GET", "/nothing", 404), ("DELETE", "/merges", 405), ("PUT", "/methods", 405)):
        answer = api.call(method, path)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


def test_the_callers_request_id_is_kept_if_it_is_sane(api):
    assert api.call("GET", "/healthz", headers={"X-Request-Id": "abc-1"}).headers["X-Request-Id"] == "abc-1"
    assert api.call("GET", "/healthz", headers={"X-Request-Id": "a b\n"}).headers["X-Request-Id"].startswith("req_")


def test_methods_health_and_metrics_are_open(api):
    methods = api.http.get("/methods").json()["data"]
    spear = next(method for method in methods if method["name"] == "spear")
    assert spear["parameters"]["properties"]["t"]["maximum"] == 1
    assert api.http.get("/healthz").json() == {"status": "ok"}
    assert api.http.get("/readyz").json()["ready"]
    api.submit()
    assert 'spear_jobs{kind="merge",status="queued"} 1.0' in api.http.get("/metrics").text
    assert api.http.get("/openapi.json").json()["info"]["title"] == "spear-merge"
    assert api.http.get("/docs").status_code == 200


def test_readiness_names_what_is_missing(api):
    api.services.database.engine.dispose()
    with api.services.database.engine.connect() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'old'")
        connection.commit()
    answer = api.http.get("/readyz")
    assert (answer.status_code, answer.json()["checks"]) == (
        503, {"database": True, "migrations": False, "broker": True}
    )
