"""Keys over HTTP and on the command line, with their limits and quotas, on real servers."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from redis import Redis
from sqlalchemy import text
from starlette.testclient import TestClient

from app.main import create_app
from tests.fixtures.api import Api
from tests.fixtures.checkpoints import checkpoint


@pytest.fixture
def admin(api: Api) -> str:
    return api.services.keys.create(name="root", scopes=("admin",))


def rows(api: Api, query: str):
    with api.services.database.transaction() as session:
        return session.execute(text(query)).all()


def with_settings(api: Api, **changes):
    """A second API process over the same database and broker."""
    return TestClient(create_app(api.services.settings.model_copy(update=changes)), raise_server_exceptions=False)


def get(http: TestClient, key: str, path: str = "/merges"):
    return http.get(path, headers={"Authorization": f"Bearer {key}"})


def test_the_life_of_a_key(api, admin):
    made = api.call("POST", "/keys", key=admin, json={
        "name": "platform", "owner": "team", "scopes": ["merges:read"], "reads": [api.user], "max_active": 3,
    })  # fmt: skip
    assert (made.status_code, made.headers["Cache-Control"]) == (201, "no-store")
    key = made.json()
    assert key["token"].startswith(f"spear_{key['prefix']}_")
    assert api.call("GET", "/merges", key=key["token"]).status_code == 200
    seen = api.call("GET", made.headers["Location"], key=admin).json()
    assert seen == {name: value for name, value in key.items() if name != "token"} | {
        "last_used_at": seen["last_used_at"]
    }
    assert seen["last_used_at"]
    assert api.call("POST", f"/keys/{key['id']}/revoke", key=admin).json()["revoked_at"]
    again = api.call("POST", f"/keys/{key['id']}/revoke", key=admin)
    assert again.status_code == 200
    assert api.call("GET", "/merges", key=key["token"]).status_code == 401
    assert api.call("POST", f"/keys/{key['id']}/rotate", key=admin).status_code == 409


def test_rotation_overlaps_and_hands_everything_on(api, admin):
    first = api.call("POST", "/keys", key=admin, json={
        "name": "p", "owner": "team", "scopes": ["merges:read", "merges:write"], "reads": [api.user],
        "writes": [f"{api.user}/target"], "unlimited": True, "bytes_per_day": 5,
        "expires_at": (datetime.now(UTC) + timedelta(days=90)).isoformat(),
    }).json()  # fmt: skip
    second = api.call("POST", f"/keys/{first['id']}/rotate", key=admin, json={"overlap_seconds": 1}).json()
    same = ("name", "owner", "scopes", "reads", "writes", "unlimited", "bytes_per_day", "max_active", "credential")
    assert [first[name] for name in same] == [second[name] for name in same]
    assert second["expires_at"] > (datetime.now(UTC) + timedelta(days=89)).isoformat()
    job = api.submit(key=first["token"]).json()["id"]
    assert api.call("GET", f"/merges/{job}", key=second["token"]).status_code == 200
    time.sleep(1.1)
    assert api.call("GET", f"/merges/{job}", key=first["token"]).status_code == 401
    assert api.call("GET", f"/merges/{job}", key=second["token"]).status_code == 200


def test_keys_come_in_pages_and_never_with_their_text_or_hash(api, admin):
    for number in range(5):
        api.new_key(f"k{number}")
    found, cursor = [], None
    while True:
        page = api.call("GET", "/keys", key=admin, params={"limit": 3} | ({"cursor": cursor} if cursor else {}))
        assert "token" not in page.text
        assert "digest" not in page.text
        found += [key["name"] for key in page.json()["data"]]
        cursor = page.json()["next_cursor"]
        if cursor is None:
            break
    assert found == ["k4", "k3", "k2", "k1", "k0", "root", "team"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"scopes": ["everything"]}, {"scopes": []}, {"name": "a b"}, {"name": ""}, {"reads": ["a/b/c"]},
        {"reads": ["*"]}, {"writes": [""]}, {"expires_at": "2020-01-01T00:00:00Z"}, {"surprise": 1},
        {"expires_at": "2999-01-01T00:00:00"}, {"requests_per_minute": 0}, {"credential": "nobody"}, {"max_active": -1},
    ],
)  # fmt: skip
def test_a_key_that_makes_no_sense_is_refused(api, admin, wrong):
    answer = api.call("POST", "/keys", key=admin, json={"name": "x", "scopes": ["merges:read"]} | wrong)
    assert answer.status_code in (400, 422)
    assert answer.json()["errors"][0]["pointer"].startswith(f"/{next(iter(wrong))}")


def test_keys_on_the_command_line(api):
    settings = api.services.settings
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SPEAR_")} | {
        "SPEAR_DATABASE_URL": settings.database_url, "SPEAR_DATA_DIR": str(settings.data_dir),
    }  # fmt: skip

    def spear(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "app.cli", "keys", *words], env=environment, capture_output=True, text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    first = spear("create", "ops", "--scope", "merges:read", "--read", api.user, "--max-active", "2")
    assert api.call("GET", "/merges", key=first).status_code == 200
    second = spear("rotate", "ops", "--overlap", "24h")
    assert second != first
    assert [api.call("GET", "/merges", key=key).status_code for key in (first, second)] == [200, 200]
    third = spear("rotate", "ops", "--overlap", "0s")
    assert [api.call("GET", "/merges", key=key).status_code for key in (first, second, third)] == [200, 401, 200]
    listed = spear("list", "--json")
    assert not any(key in listed for key in (first, second, third))
    assert listed.count('"ops"') == 6  # three keys, each of them with name and owner
    assert spear("revoke", "ops") == "3 revoked"
    assert api.call("GET", "/merges", key=third).status_code == 401
    actions = [row.action for row in rows(api, "SELECT action FROM audit WHERE owner LIKE 'cli:%' ORDER BY id")]
    assert actions == ["spear keys create", "spear keys rotate", "spear keys rotate", "spear keys revoke"]


def test_rate_limits_are_told_and_held_over_two_processes(api):
    key = api.services.keys.create(name="busy", scopes=("merges:read", "merges:write"))
    with with_settings(api, requests_per_minute=5) as one, with_settings(api, requests_per_minute=5) as two:
        answers = [get(http, key) for http in (one, two, one, two, one, two)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429]
    assert answers[0].headers["RateLimit-Policy"] == '"requests";q=5;w=60'
    assert [answer.headers["RateLimit"].split(";")[1] for answer in answers] == [f"r={n}" for n in (4, 3, 2, 1, 0, 0)]
    refused = answers[-1]
    assert refused.json()["code"] == "rate_limited"
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert 1 <= int(refused.headers["Retry-After"]) <= 60


def test_changes_have_a_limit_of_their_own(api):
    key = api.services.keys.create(name="busy", scopes=("merges:read", "merges:write"))
    with with_settings(api, changes_per_minute=2) as http:
        post = [
            http.post("/merges/mrg_x/cancel", headers={"Authorization": f"Bearer {key}"}).status_code
            for _ in range(3)
        ]  # fmt: skip
        assert post == [404, 404, 429]
        read = get(http, key)
    assert read.status_code == 200
    assert read.headers["RateLimit"].startswith('"requests";r=')


def test_a_key_has_its_own_number_and_an_unlimited_one_has_none(api):
    from app.jobs.keys import Allowance

    own = api.services.keys.create(name="own", scopes=("merges:read",), allowance=Allowance(requests_per_minute=2))
    free = api.services.keys.create(name="free", scopes=("merges:read",), unlimited=True)
    with with_settings(api, requests_per_minute=1) as http:
        assert [get(http, own).status_code for _ in range(3)] == [200, 200, 429]
        answers = [get(http, free) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200] * 4
    assert "RateLimit" not in answers[0].headers


def test_guessing_keys_is_slowed_down_by_address(api):
    with with_settings(api, refusals_per_minute=3) as http:
        assert [get(http, f"spear_00000000_{n}").status_code for n in range(5)] == [401, 401, 401, 429, 429]
        assert get(http, api.key).status_code == 200  # who has a key is not shut out with them


def test_everybody_is_let_in_while_redis_is_away(api, capfd):
    key = api.services.keys.create(name="busy", scopes=("merges:read",))
    with with_settings(api, requests_per_minute=1, redis_url="redis://127.0.0.1:1") as http:
        began = time.monotonic()
        answers = [get(http, key) for _ in range(4)]
        assert time.monotonic() - began < 3
    assert [answer.status_code for answer in answers] == [200] * 4
    assert "limits.away" in "".join(capfd.readouterr())


def test_without_redis_the_limits_are_in_memory(api):
    key = api.services.keys.create(name="busy", scopes=("merges:read",))
    with with_settings(api, requests_per_minute=2, redis_url="") as http:
        assert [get(http, key).status_code for _ in range(3)] == [200, 200, 429]


def test_nothing_of_a_key_is_in_redis(api):
    assert api.call("GET", "/merges").status_code == 200
    with Redis.from_url(api.services.settings.redis_url) as redis:
        names = redis.keys("*")
    assert names
    assert not any(api.key.rpartition("_")[2].encode() in name for name in names)


def quota_key(api: Api, **limits: int) -> str:
    from app.jobs.keys import Allowance

    return api.services.keys.create(
        name="q", scopes=("merges:read", "merges:write"), reads=[api.user], writes=[api.user],
        allowance=Allowance(**limits),
    )  # fmt: skip


def submit_all(api: Api, key: str, count: int):
    def one(number: int):
        return api.submit(api.recipe(target={"repo": f"{api.user}/t{number}"}), key=key)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def test_active_jobs_are_counted_without_a_race(api):
    key = quota_key(api, max_active=2)
    answers = submit_all(api, key, 7)
    assert sorted(answer.status_code for answer in answers) == [202] * 2 + [429] * 5
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert (refused.json()["code"], refused.json()["names"]["quota"]) == ("quota_exceeded", "max_active")
    assert int(refused.headers["Retry-After"]) > 0
    rotated, token = api.services.keys.rotate(api.services.keys.newest("q"), overlap=timedelta(days=1))
    assert rotated.max_active == 2
    assert api.submit(key=token).status_code == 429  # a rotated key starts no new count
    job = next(answer.json()["id"] for answer in answers if answer.status_code == 202)
    assert api.call("POST", f"/merges/{job}/cancel", key=key).status_code == 202
    assert api.submit(key=key).status_code == 202


def test_bytes_of_a_day_are_counted_without_a_race(api):
    planned = api.call("POST", "/merges/plan", json=api.recipe()).json()["bytes_to_download"]
    answers = submit_all(api, quota_key(api, bytes_per_day=3 * planned + 1), 6)
    assert sorted(answer.status_code for answer in answers) == [202] * 3 + [429] * 3
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.json()["names"] == {
        "quota": "bytes_per_day", "limit": 3 * planned + 1, "planned_bytes": planned,
        "retry_after": int(refused.headers["Retry-After"]),
    }  # fmt: skip
    assert 0 < int(refused.headers["Retry-After"]) <= 86_400
    assert [row.bytes for row in rows(api, "SELECT bytes FROM usage WHERE name = 'q'")] == [3 * planned]


def test_a_replay_and_a_refused_job_cost_no_quota(api):
    planned = api.call("POST", "/merges/plan", json=api.recipe()).json()["bytes_to_download"]
    key = quota_key(api, max_active=1)
    first = api.submit(key=key, headers={"Idempotency-Key": "a"})
    again = api.submit(key=key, headers={"Idempotency-Key": "a"})
    assert [first.status_code, again.status_code] == [202, 202]
    assert again.headers["Idempotent-Replayed"] == "true"
    assert api.submit(api.recipe(target={"repo": f"{api.user}/other"}), key=key).status_code == 429
    assert [row.bytes for row in rows(api, "SELECT bytes FROM usage WHERE name = 'q'")] == [planned]


def test_the_settings_give_the_default_quota(api):
    with with_settings(api, max_active_jobs=1) as http:
        bearer = {"Authorization": f"Bearer {api.key}"}
        codes = [
            http.post("/merges", headers=bearer, json=api.recipe(target={"repo": f"{api.user}/t{n}"})).status_code
            for n in range(2)
        ]
    assert codes == [202, 429]


def test_the_audit_has_every_change_and_every_refusal(api, admin):
    headers = {"X-Request-Id": "one"}
    job = api.submit(headers=headers).json()["id"]
    api.call("POST", f"/merges/{job}/cancel", headers={"X-Request-Id": "two"})
    api.call("POST", "/merges/nothing/cancel")
    api.submit(api.recipe(base={"repo": "nobody/private"}))
    api.call("POST", "/keys", json={"name": "x", "scopes": ["admin"]})
    api.call("POST", "/merges", key="spear_00000000_x", json={})
    api.call("GET", "/merges")
    made = api.call("POST", "/keys", key=admin, json={"name": "x", "scopes": ["admin"]}).json()
    api.call("POST", "/nowhere/hf_canarycanary")
    api.call("POST", "/merges", content=b"x" * 20_000)
    found = api.call("GET", "/audit", key=admin).json()["data"]
    told = [(row["action"], row["object"], row["status"], row["code"], row["owner"]) for row in reversed(found)]
    assert told == [
        ("POST /merges", f"/merges/{job}", 202, None, "team"),
        ("POST /merges/{job_id}/cancel", f"/merges/{job}", 202, None, "team"),
        ("POST /merges/{job_id}/cancel", "/merges/nothing/cancel", 404, "not_found", "team"),
        ("POST /merges", "/merges", 403, "read_not_granted", "team"),
        ("POST /keys", "/keys", 403, "scope_missing", "team"),
        ("POST /merges", "/merges", 401, "unauthenticated", None),
        ("POST /keys", f"/keys/{made['id']}", 201, None, "root"),
        ("POST ?", "/nowhere/[redacted]", 404, "not_found", None),
        ("POST ?", "/merges", 413, "request_too_large", None),
    ]
    assert found[-1]["request_id"] == "one"
    assert found[-1]["address"] == "testclient"
    mine = api.call("GET", "/audit", key=admin, params={"owner": "root"}).json()["data"]
    assert [row["action"] for row in mine] == ["POST /keys"]
    page = api.call("GET", "/audit", key=admin, params={"limit": 2}).json()
    rest = api.call("GET", "/audit", key=admin, params={"limit": 2, "cursor": page["next_cursor"]}).json()
    assert [row["id"] for row in (*page["data"], *rest["data"])] == [row["id"] for row in found[:4]]


def test_the_audit_cannot_be_changed(api):
    from sqlalchemy.exc import IntegrityError

    api.call("POST", "/merges/nothing/cancel")
    for statement in ("UPDATE audit SET owner = 'x'", "DELETE FROM audit", "TRUNCATE audit"):
        with pytest.raises(IntegrityError, match="append-only"), api.services.database.transaction() as session:
            session.execute(text(statement))
    assert len(rows(api, "SELECT id FROM audit")) == 1


def test_the_audit_is_kept_for_so_long(api):
    from app.jobs.audit import Audit, Deed

    audit = Audit(api.services.database, days=0.00001)
    audit.write(Deed(action="a", object="old", status=200))
    time.sleep(1)
    audit.write(Deed(action="a", object="new", status=200))
    assert audit.trim() == 1
    assert [row.object for row in audit.find(limit=9)] == ["new"]
    assert Audit(api.services.database, days=0).trim() == 0


def test_a_crash_inside_a_request_is_audited_too(api, admin):
    with api.services.database.transaction() as session:
        session.execute(text("ALTER TABLE jobs RENAME TO gone"))
    try:
        assert api.call("POST", "/merges/mrg_x/cancel").status_code == 500
    finally:
        with api.services.database.transaction() as session:
            session.execute(text("ALTER TABLE gone RENAME TO jobs"))
    found = api.call("GET", "/audit", key=admin).json()["data"]
    assert [(row["status"], row["code"], row["owner"]) for row in found] == [(500, "internal_error", "team")]


def test_a_named_credential_is_used_for_its_key(api, tmp_path, admin):
    other, token = api.hub.fresh_user()
    place = tmp_path / "credentials.toml"
    (tmp_path / "other").write_text(token)
    place.write_text('[other]\nread_token_file = "other"\nwrite_token_file = "other"\n[gone]\nread_token_file = "no"\n')
    from tests.fixtures.checkpoints import push

    for name, seed in (("base", 1), ("adapted", 2)):
        push(api.hub.api(token), f"{other}/{name}", checkpoint(seed=seed), private=True)
    recipe = {
        "base": {"repo": f"{other}/base"}, "experts": [{"repo": f"{other}/adapted"}], "method": {"name": "spear"},
        "target": {"repo": f"{other}/target"},
    }  # fmt: skip
    with with_settings(api, hub_credentials=place) as http:
        new = {"name": "n", "scopes": ["merges:write"], "reads": [other], "writes": [other]}

        def submit(credential: str | None):
            bearer = {"Authorization": f"Bearer {admin}"}
            made = http.post("/keys", headers=bearer, json=new | {"credential": credential})
            key = made.json()["token"]
            return http.post("/merges", headers={"Authorization": f"Bearer {key}"}, json=recipe)

        assert submit(None).json()["code"] == "target_not_writable"  # the service's own account is nobody there
        assert submit("gone").json()["code"] == "not_ready"
        assert submit("other").status_code == 202
