"""Who sees which page: sessions, their end, forms of other sites, and the tenancy of the API."""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from fastapi import FastAPI
from redis import Redis
from sqlalchemy import text
from starlette.testclient import TestClient

from app.dashboard.sessions import COOKIE, Ended, Sessions
from app.main import create_app
from tests.fixtures.api import Api
from tests.fixtures.reports import add_job, make_report, make_sheets

PAGES = ("/", "/jobs", "/jobs/{job}", "/jobs/{job}/live", "/jobs/{job}/heatmap", "/jobs/{job}/tensors",
         "/jobs/{job}/cell?module=q&layer=0", "/jobs/{job}/scores.csv", "/jobs/{job}/report.json",
         "/jobs/{job}/answers?task=finance", "/compare?a={job}&b={job}")  # fmt: skip
LISTS = ("/", "/jobs")


@pytest.fixture
def job(api: Api) -> str:
    caller = api.services.keys.find(api.key)
    assert caller is not None
    return add_job(
        api.services.database, caller, report=make_report(layers=1), documents={"sheets": make_sheets(items=3)}
    )


@pytest.fixture
def another(api: Api) -> Iterator[Callable[..., FastAPI]]:
    """A second API process over the same database and broker, with other settings if wanted."""
    made = []

    def make(**changes: Any) -> FastAPI:
        made.append(create_app(api.services.settings.model_copy(update=changes)))
        return made[-1]

    yield make
    for app in made:
        app.state.services.database.close()
        app.state.services.limits.close()
        app.state.sessions.close()


def browser(api: Api, *, https: bool = False, app=None) -> TestClient:
    """A browser without anything in it."""
    return TestClient(
        app or api.http.app, base_url=f"http{'s' if https else ''}://testserver", follow_redirects=False,
        raise_server_exceptions=False,
    )


def sign_in(http: TestClient, key: str, *, wanted: str = "/", **headers: str):
    form = http.get("/sign-in", params={"next": wanted}).text
    token = re.search(r'name="token" value="([^"]+)"', form)[1]
    back = re.search(r'name="next" value="([^"]+)"', form)[1]
    return http.post("/sign-in", data={"key": key, "token": token, "next": back}, headers=headers)


def test_every_page_is_for_those_who_may_see_the_job(api, job):
    make = api.services.keys.create
    past = datetime.now(UTC) - timedelta(seconds=1)
    keys = {
        "none": None, "wrong": api.key[:-4] + "AAAA",
        "expired": make(name="old", owner="team", scopes=("merges:read",), expires_at=past),
        "write": make(name="write", owner="team", scopes=("merges:write",)),
        "read": make(name="read", owner="team", scopes=("merges:read",)),
        "other": make(name="other", scopes=("merges:read", "merges:write")),
        "admin": make(name="root", scopes=("admin",)),
    }  # fmt: skip
    expected = {"none": 303, "wrong": 303, "expired": 303, "write": 403, "read": 200, "other": 404, "admin": 200}
    http = browser(api)
    for page in PAGES:
        for who, key in keys.items():
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            answer = http.get(page.format(job=job), headers=headers)
            status = 200 if who == "other" and page in LISTS else expected[who]
            assert answer.status_code in {status, 204 if status == 200 else status}, (page, who)
            assert who in {"read", "admin"} or job not in answer.text.replace(f"there is no job {job}", "")


def test_signing_in_opens_a_session_that_holds_no_key(api, job):
    http = browser(api)
    assert http.get("/").headers["location"] == "/sign-in"
    asked = http.get(f"/jobs/{job}?metric=snr").headers["location"]
    assert parse_qs(urlsplit(asked).query) == {"next": [f"/jobs/{job}?metric=snr"]}
    answer = sign_in(http, api.key, wanted=f"/jobs/{job}?metric=snr")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/jobs/{job}?metric=snr")
    cookie = next(c for c in answer.headers.get_list("set-cookie") if c.startswith(COOKIE))
    assert {"HttpOnly", "Path=/", "SameSite=strict"} <= set(cookie.split("; "))
    assert "Secure" not in cookie
    secret = api.key.split("_", 2)[2]
    assert secret not in cookie
    assert job in http.get("/").text
    set_ = sign_in(browser(api, https=True), api.key).headers.get_list("set-cookie")
    assert all("Secure" in cookie.split("; ") for cookie in set_ if "Max-Age=0" not in cookie)


def test_who_comes_from_elsewhere_is_known_at_the_second_look(api):
    http = browser(api)
    assert http.get("/sign-in/known").json() == {"known": False}
    sign_in(http, api.key)
    assert http.get("/sign-in/known").json() == {"known": True}


@pytest.mark.parametrize("wanted", ["//evil.example", "https://evil.example", "/\\evil", "javascript:alert(1)", ""])
def test_signing_in_leads_nowhere_else(api, wanted):
    assert sign_in(browser(api), api.key, wanted=wanted).headers["location"] == "/"


@pytest.mark.parametrize("key", ["", "spear_0_x", "spear_12345678_wrong", "ключ", "a\u0000b", "x" * 5000])
def test_a_wrong_key_opens_nothing(api, key):
    http = browser(api)
    answer = sign_in(http, key)
    assert answer.status_code in {400, 401}
    assert COOKIE not in http.cookies
    assert "spear_12345678" not in answer.text


def test_a_key_that_may_not_read_opens_nothing(api):
    http = browser(api)
    assert sign_in(http, api.new_key("write", scopes=("merges:write",))).status_code == 403
    assert COOKIE not in http.cookies


def test_no_other_site_signs_anybody_in_or_out(api):
    http = browser(api)
    assert http.post("/sign-in", data={"key": api.key}).status_code == 403
    assert sign_in(http, api.key, **{"Sec-Fetch-Site": "cross-site"}).status_code == 403
    other = browser(api).get("/sign-in").text  # the attacker's own form, without the victim's cookie
    stolen = re.search(r'name="token" value="([^"]+)"', other)[1]
    assert http.post("/sign-in", data={"key": api.key, "token": stolen}).status_code == 403
    assert COOKIE not in http.cookies
    sign_in(http, api.key)
    assert http.post("/sign-out", data={"token": stolen}).status_code == 400
    assert http.post("/sign-out").status_code == 400
    assert http.get("/").status_code == 200


def test_a_copy_of_the_cookie_is_worth_nothing_after_signing_out_in_any_process(api, another):
    http, copied = browser(api), browser(api, app=another())
    sign_in(http, api.key)
    copied.cookies.set(COOKIE, http.cookies[COOKIE])
    page = copied.get("/")
    assert page.status_code == 200
    token = re.search(r'name="token" value="([^"]+)"', page.text)[1]
    assert http.post("/sign-out", data={"token": token}).headers["location"] == "/sign-in"
    assert COOKIE not in http.cookies
    assert copied.get("/").status_code == 303


def test_sessions_end_with_their_key(api):
    made, key = api.services.keys.add(name="short", owner="team", scopes=("merges:read",))
    http = browser(api)
    sign_in(http, key)
    assert http.get("/").status_code == 200
    ran_out = text("UPDATE api_keys SET expires_at = now() - interval '1 second' WHERE id = :id")
    with api.services.database.transaction() as session:
        session.execute(ran_out, {"id": made.id})
    assert http.get("/").status_code == 303
    with api.services.database.transaction() as session:
        session.execute(text("UPDATE api_keys SET expires_at = NULL WHERE id = :id"), {"id": made.id})
    assert http.get("/").status_code == 200
    api.services.keys.revoke_one(made.id)
    assert http.get("/").status_code == 303
    part = http.get("/jobs", headers={"HX-Request": "true", "HX-Current-URL": "http://testserver/?status=failed"})
    assert (part.status_code, part.headers["hx-redirect"]) == (401, "/sign-in?next=%2F%3Fstatus%3Dfailed")


def test_cookies_of_another_service_or_too_old_open_nothing(api, monkeypatch):
    caller = api.services.keys.find(api.key)
    http = browser(api)
    http.cookies.set(COOKIE, Sessions(b"another secret", ended=Ended("")).begin(caller.key_id))
    assert http.get("/").status_code == 303
    http.cookies.set(COOKIE, Sessions(api.services.settings.secret, ended=Ended("")).begin(caller.key_id))
    assert http.get("/").status_code == 200
    monkeypatch.setattr("itsdangerous.timed.time.time", lambda: datetime.now(UTC).timestamp() + 13 * 3600)
    assert http.get("/").status_code == 303


def test_where_redis_is_away_signing_out_holds_in_this_process(api):
    ended = Ended("redis://127.0.0.1:1/0")
    sessions = Sessions(b"secret", ended=ended)
    cookie = sessions.begin("key_1")
    session = sessions.read(cookie)
    assert session is not None
    sessions.end(session)
    assert sessions.read(cookie) is None
    assert sessions.read(sessions.begin("key_1")) is not None


def test_what_is_kept_of_a_session_is_its_name_alone(api, redis_url):
    http = browser(api)
    sign_in(http, api.key)
    token = re.search(r'name="token" value="([^"]+)"', http.get("/").text)[1]
    http.post("/sign-out", data={"token": token})
    with Redis.from_url(redis_url) as redis:
        kept = list(redis.scan_iter("signed-out:*"))
        assert len(kept) == 1
        assert 0 < redis.ttl(kept[0]) <= 12 * 3600


def test_signing_in_is_in_the_audit_without_the_key(api):
    http = browser(api)
    sign_in(http, api.key)
    sign_in(http, "spear_12345678_wrong")
    with api.services.database.transaction() as session:
        rows = session.execute(text("SELECT action, status, code, owner FROM audit ORDER BY id")).all()
    assert [tuple(row) for row in rows][-2:] == [
        ("POST /sign-in", 303, None, "team"), ("POST /sign-in", 401, None, None),
    ]  # fmt: skip


def test_wrong_keys_are_counted_by_address(api, another):
    http = browser(api, app=another(refusals_per_minute=3, redis_url=""))
    answers = [sign_in(http, "spear_12345678_wrong").status_code for _ in range(5)]
    assert answers == [401, 401, 401, 429, 429]


def test_the_workers_are_for_administrators(api):
    assert api.call("GET", "/fleet").status_code == 403
    answer = api.call("GET", "/fleet", key=api.services.keys.create(name="root", scopes=("admin",)))
    assert answer.status_code == 200
    assert "No worker was heard of" in answer.text
    assert ">Workers</a>" in answer.text
    assert "/fleet" not in api.call("GET", "/").text


def test_errors_are_pages_with_their_request(api):
    answer = api.call("GET", "/jobs/mrg_none")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["x-request-id"] in answer.text
    assert "there is no job mrg_none" in answer.text
    assert api.call("GET", "/jobs/mrg_none?number=0").status_code == 400
