"""Who may do what on every route. A route without an entry here fails; so does an entry without a route."""

from datetime import UTC, datetime, timedelta

import pytest

from app.jobs.documents import put_documents
from app.jobs.tables import Job
from tests.fixtures.api import Api
from tests.integration.test_api_studies import push_named, study

PUBLIC = dict.fromkeys(("none", "wrong", "expired", "revoked", "read", "write", "other", "admin"), 200)
NOBODY = dict.fromkeys(("none", "wrong", "expired", "revoked"), 401)


def cells(*, read: int, write: int, other: int, admin: int) -> dict[str, int]:
    """The status for a key with the read scope, with the write scope (both with all grants of the job's owner), for
    another tenant with both scopes and no grants, and for an administrator without grants."""
    return NOBODY | {"read": read, "write": write, "other": other, "admin": admin}


SEEN = cells(read=200, write=403, other=404, admin=200)
LISTED = cells(read=200, write=403, other=200, admin=200)
CHANGED = cells(read=403, write=202, other=404, admin=202)
GRANTED = cells(read=403, write=202, other=403, admin=403)
RETRIED = cells(read=403, write=202, other=404, admin=403)  # an administrator has no grants either
ADMINISTERED = cells(read=403, write=403, other=403, admin=200)
MADE = ADMINISTERED | {"admin": 201}

MATRIX: dict[str, dict[str, int]] = {
    "POST /merges": GRANTED,
    "GET /merges": LISTED,
    "POST /merges/plan": cells(read=403, write=200, other=200, admin=200),  # 200 with refusals
    "GET /merges/{job_id}": SEEN,
    "POST /merges/{job_id}/cancel": CHANGED,
    "POST /merges/{job_id}/retry": RETRIED,
    "GET /merges/{job_id}/events": SEEN,
    "GET /merges/{job_id}/scores": SEEN,
    "GET /merges/{job_id}/report": SEEN,
    "GET /merges/{job_id}/spectra": SEEN,
    "GET /merges/{job_id}/sheets": SEEN,
    "GET /merges/{job_id}/export": SEEN,
    "GET /merges/{job_id}/deliveries": SEEN,
    # the job has no webhook, so there is nothing to send again
    "POST /merges/{job_id}/deliveries/{number}/redeliver": cells(read=403, write=404, other=404, admin=404),
    "POST /scores": GRANTED,
    "GET /scores": LISTED,
    "GET /scores/{job_id}": SEEN,
    "POST /scores/{job_id}/cancel": CHANGED,
    "POST /scores/{job_id}/retry": RETRIED,
    "GET /scores/{job_id}/events": SEEN,
    "GET /scores/{job_id}/scores": SEEN,
    "GET /scores/{job_id}/report": SEEN,
    "GET /scores/{job_id}/spectra": SEEN,
    "POST /evaluations": GRANTED,
    "GET /evaluations": LISTED,
    "GET /evaluations/{job_id}": SEEN,
    "POST /evaluations/{job_id}/cancel": CHANGED,
    "POST /evaluations/{job_id}/retry": RETRIED,
    "GET /evaluations/{job_id}/events": SEEN,
    "GET /evaluations/{job_id}/scores": SEEN,
    "GET /evaluations/{job_id}/report": SEEN,
    "GET /evaluations/{job_id}/sheets": SEEN,
    "POST /studies": GRANTED,
    "GET /studies": LISTED,
    "GET /studies/{job_id}": SEEN,
    "POST /studies/{job_id}/cancel": CHANGED,
    "POST /studies/{job_id}/retry": RETRIED,
    "GET /studies/{job_id}/events": SEEN,
    "GET /studies/{job_id}/scores": SEEN,
    "GET /studies/{job_id}/report": SEEN,
    "GET /studies/{job_id}/sheets": SEEN,
    "GET /studies/{job_id}/export": SEEN,
    "GET /webhooks/secrets": cells(read=403, write=200, other=200, admin=200),  # each owner its own
    "GET /keys": ADMINISTERED,
    "POST /keys": MADE,
    "GET /keys/{key_id}": ADMINISTERED,
    "POST /keys/{key_id}/rotate": MADE,
    "POST /keys/{key_id}/revoke": ADMINISTERED,
    "GET /audit": ADMINISTERED,
    "GET /workers": ADMINISTERED,
    "GET /methods": PUBLIC,
    "GET /problems/{code}": PUBLIC,
    "GET /healthz": PUBLIC,
    "GET /readyz": PUBLIC,
    "GET /metrics": PUBLIC,
}
TENSOR = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture
def keys(api: Api) -> dict[str, str | None]:
    """One key of each kind; those that may are of the owner of the jobs."""
    make, grants = api.services.keys.create, {"reads": [api.user], "writes": [api.user]}
    both = ("merges:read", "merges:write")
    past = datetime.now(UTC) - timedelta(seconds=1)
    made = {
        "none": None,
        "wrong": api.key[:-4] + "AAAA",
        "expired": make(name="old", owner="team", scopes=both, expires_at=past, **grants),
        "revoked": make(name="out", owner="team", scopes=(*both, "admin"), **grants),
        "read": make(name="read", owner="team", scopes=("merges:read",), **grants),
        "write": make(name="write", owner="team", scopes=("merges:write",), **grants),
        "other": make(name="other", scopes=both),
        "admin": make(name="root", scopes=("admin",)),
    }
    api.services.keys.revoke(name="out")
    return made


class Stage:
    """The team's jobs, and a request for each route."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.count = 0
        push_named(api)
        self.fixed = {folder: self.new(folder) for folder in ("/merges", "/scores", "/evaluations", "/studies")}

    def recipe(self, folder: str) -> dict:
        self.count += 1
        if folder == "/studies":
            return study(self.api)
        if folder == "/evaluations":
            tasks = {"domain": study(self.api)["evaluation"]["domain"]}
            return {"models": [{"repo": f"{self.api.user}/base"}], "evaluation": tasks}
        whole = self.api.recipe(target={"repo": f"{self.api.user}/target-{self.count}"})
        return whole if folder == "/merges" else {name: whole[name] for name in ("base", "experts", "method")}

    def new(self, folder: str) -> str:
        """A queued job with all documents."""
        job = self.api.call("POST", folder, json=self.recipe(folder)).json()["id"]
        drawn = {"shape": [8, 8], "count": 8, "precision": "exact", "edge": 1.0, "edge_adapted": 1.0, "base": [1.0],
                 "adapted": [1.0]}  # fmt: skip
        spectra = {"tensors": {TENSOR: drawn}, "ranks": {"8": [1]}}
        about = {"kind": "score", "metric": "acc", "unit": "share right", "items": [], "models": {}}
        documents = {
            "scores": {"data": []}, "report": {"format": 1}, "spectra": spectra, "sheets": {"tasks": {"fin": about}},
            "exports": {"csv": {"media_type": "text/csv", "base64": ""}},
        }
        with self.api.services.database.transaction() as session:
            put_documents(session, job, documents)
        return job

    def cancelled(self, folder: str) -> str:
        job = self.new(folder)
        assert self.api.call("POST", f"{folder}/{job}/cancel").status_code == 202
        return job

    def call(self, route: str, key: str | None):
        method, template = route.split(" ")
        folder = next((one for one in self.fixed if template.startswith(one)), "/merges")
        path = template.replace("{code}", "not_found").replace("{number}", "1")
        if "{job_id}" in path:
            fixed = self.fixed[folder]
            job = self.cancelled(folder) if path.endswith("/retry") else self.new(folder) if method == "POST" else fixed
            path = path.replace("{job_id}", job)
        if "{key_id}" in path:
            row, _ = self.api.services.keys.add(name="subject", scopes=("merges:read",))
            path = path.replace("{key_id}", row.id)
        body = {"json": self.body(template, folder)} if method == "POST" else {}
        query = {"params": {"tensor": TENSOR, "task": "fin"}} if path.endswith(("/spectra", "/sheets")) else {}
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return self.api.http.request(method, path, headers=headers, **body, **query)

    def body(self, template: str, folder: str) -> dict | None:
        if template == "/keys":
            return {"name": "made", "scopes": ["merges:read"]}
        return self.recipe(folder) if template in (*self.fixed, "/merges/plan") else None


def test_every_route_has_its_row(api):
    paths = api.http.get("/openapi.json").json()["paths"]
    assert {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods} == set(MATRIX)


def test_every_cell_is_as_documented(api, keys):
    stage = Stage(api)
    wrong = []
    for route, row in MATRIX.items():
        for who, status in row.items():
            answer = stage.call(route, keys[who])
            if answer.status_code != status:
                wrong.append((route, who, answer.status_code, status, answer.text[:200]))
            if answer.status_code >= 400:
                assert answer.headers["Content-Type"] == "application/problem+json", route
    assert wrong == []
    assert sum(map(len, MATRIX.values())) == 8 * len(MATRIX)


def test_without_a_key_nothing_is_said_but_that(api, keys):
    answers = [api.http.get("/merges/mrg_x", headers=headers) for headers in ({}, {"Authorization": "Basic x"})]
    assert {answer.headers["WWW-Authenticate"] for answer in answers} == {"Bearer"}
    bad = [api.call("GET", "/merges", key=keys[who]) for who in ("wrong", "expired", "revoked")]
    assert len({answer.json()["detail"] for answer in bad}) == 1


def test_an_object_of_another_tenant_looks_like_none(api, keys):
    stage = Stage(api)
    for route in (route for route in MATRIX if "{job_id}" in route):
        method, template = route.split(" ")
        job = next(job for folder, job in stage.fixed.items() if template.startswith(folder))
        absent = job[:-1] + ("0" if job[-1] != "0" else "1")
        query = {"params": {"tensor": TENSOR, "task": "fin"}} if template.endswith(("/spectra", "/sheets")) else {}
        answers = [
            api.call(method, template.replace("{job_id}", one).replace("{number}", "1"), key=keys["other"], **query)
            for one in (job, absent)
        ]  # fmt: skip
        bodies = [
            {name: value for name, value in answer.json().items() if name not in ("request_id", "trace_id")}
            for answer in answers
        ]
        assert [answer.status_code for answer in answers] == [404, 404], route
        assert str(bodies[0]).replace(job, absent) == str(bodies[1]), route


def test_lists_show_each_tenant_its_own(api, keys):
    stage = Stage(api)
    for folder, job in stage.fixed.items():
        ids = {
            who: [one["id"] for one in api.call("GET", folder, key=keys[who]).json()["data"]]
            for who in ("read", "other", "admin")
        }
        assert ids == {"read": [job], "other": [], "admin": [job]}


def test_an_administrator_sees_no_secret_of_others(api, keys):
    """What of a secret is in any answer that an administrator can get: nothing."""
    stage = Stage(api)
    theirs = api.call("GET", "/webhooks/secrets").json()["data"]
    texts = [stage.call(route, keys["admin"]).text for route in MATRIX if route.startswith("GET")]
    for secret in (*theirs, api.key, api.token, *(key for key in keys.values() if key)):
        assert not any(secret in text for text in texts)


def test_a_job_remembers_its_owner_in_the_database(api):
    job = api.submit().json()["id"]
    with api.services.database.transaction() as session:
        assert session.get(Job, job).owner == "team"
