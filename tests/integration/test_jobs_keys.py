"""API keys and the cache of spectra on a real Postgres."""

import base64
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from app.errors import SpearError
from app.jobs.keys import Keys
from app.jobs.spectra import Spectra


def test_a_key_is_found_by_its_whole_text_only(jobs):
    token = jobs.keys.create(name="a", scopes=("merges:read",), reads=["org"], writes=["org/x"])
    caller = jobs.keys.find(token)
    assert (caller.owner, caller.scopes, caller.reads, caller.writes) == ("a", {"merges:read"}, ("org",), ("org/x",))
    for wrong in (token[:-1], token + "x", token.replace("spear_", "spear-"), "", "spear__", "Bearer"):
        assert jobs.keys.find(wrong) is None


def test_only_an_hmac_of_the_key_is_stored(jobs):
    token = jobs.keys.create(name="a", scopes=("admin",))
    with jobs.database.transaction() as session:
        stored = str(session.execute(text("SELECT * FROM api_keys")).all())
    assert token.split("_", 2)[2] not in stored
    assert Keys(jobs.database, secret=b"another secret").find(token) is None


def test_revoked_and_expired_keys_are_not_found(jobs):
    token = jobs.keys.create(name="a", scopes=("admin",))
    assert jobs.keys.revoke(name="a") == 1
    assert jobs.keys.find(token) is None
    past = datetime.now(UTC) - timedelta(seconds=1)
    assert jobs.keys.find(jobs.keys.create(name="b", scopes=("admin",), expires_at=past)) is None


def test_a_name_that_two_owners_use_needs_the_owner(jobs):
    mine, theirs = (jobs.keys.create(name="ci", owner=owner, scopes=("admin",)) for owner in ("me", "them"))
    for call in (lambda: jobs.keys.revoke(name="ci"), lambda: jobs.keys.newest("ci")):
        with pytest.raises(SpearError, match="me, them"):
            call()
    assert jobs.keys.newest("ci", owner="me") == jobs.keys.find(mine).key_id
    assert jobs.keys.revoke(name="ci", owner="me") == 1
    assert jobs.keys.find(mine) is None
    assert jobs.keys.find(theirs)


def test_the_worker_sees_what_the_owner_may_now(jobs):
    past = datetime.now(UTC) - timedelta(seconds=1)
    jobs.keys.create(name="old", owner="o", scopes=("admin",), reads=["x"], expires_at=past)
    with jobs.database.transaction() as session:
        old = session.execute(text("SELECT id FROM api_keys WHERE name = 'old'")).scalar_one()
    assert jobs.keys.grants(old).reads == ("x",)
    jobs.keys.revoke(name="old")
    assert jobs.keys.grants(old) is None
    jobs.keys.create(name="new", owner="o", scopes=("admin",), reads=["y"])
    assert jobs.keys.grants(old).reads == ("y",)


def test_an_unknown_scope_is_refused(jobs):
    with pytest.raises(SpearError, match="unknown scope everything"):
        jobs.keys.create(name="a", scopes=("everything",))


def record(tensor: str, *, digest: str = "sha256:1", algorithm: str = "gram-1", size: int = 80) -> dict:
    return {
        "digest": digest, "tensor": tensor, "algorithm": algorithm, "precision": "exact", "device_class": "cpu",
        "count": size // 8, "data": base64.b64encode(bytes(size)).decode(),
    }  # fmt: skip


def test_spectra_are_found_by_the_digest_of_their_file(jobs):
    spectra = Spectra(jobs.database, max_bytes=10**6)
    spectra.add([record("a"), record("b"), record("a", digest="sha256:2")])
    spectra.add([record("a")])
    found = sorted(spectra.find(["sha256:1"]), key=lambda r: r["tensor"])
    assert found == [record("a"), record("b")]
    assert not list(spectra.find(["sha256:3"]))


def test_the_least_recently_used_spectra_go_first(jobs):
    spectra = Spectra(jobs.database, max_bytes=200)
    for number in range(4):
        spectra.add([record("a", digest=f"sha256:{number}")])
    assert len(list(spectra.find(["sha256:0"]))) == 1
    assert spectra.trim() == 2
    left = [digest for digest in ("sha256:0", "sha256:1", "sha256:2", "sha256:3") if list(spectra.find([digest]))]
    assert left == ["sha256:0", "sha256:3"]
