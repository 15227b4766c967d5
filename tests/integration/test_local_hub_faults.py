"""Each kind of trouble reaches the real client as the real trouble would."""

import contextlib
import http.client
import json
import time
import urllib.error
import urllib.request
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError

from tests.fixtures.hub import LocalHub

BIG = bytes(range(256)) * 8000  # 2 MB


@pytest.fixture
def api(local_hub: LocalHub) -> HfApi:
    return local_hub.api(local_hub.fresh_user()[1])


@pytest.fixture
def repo(api: HfApi) -> str:
    repo = api.create_repo(f"{api.whoami()['name']}/model").repo_id
    api.create_commit(repo, [CommitOperationAdd("w.safetensors", BIG)], commit_message="w")
    return repo


def commit(api: HfApi, repo: str, text: bytes, **options) -> str:
    return api.create_commit(repo, [CommitOperationAdd("a", text)], commit_message="a", **options).oid


def fetch(local_hub: LocalHub, repo: str) -> bytes:
    with urllib.request.urlopen(f"{local_hub.endpoint}/{repo}/resolve/main/w.safetensors", timeout=30) as reply:
        return reply.read()


def hits(local_hub: LocalHub) -> list[int]:
    return [rule["hits"] for rule in local_hub.faults()]


def test_apply_then_drop(local_hub: LocalHub, api: HfApi, repo: str):
    before = api.model_info(repo).sha
    local_hub.fault("apply_then_drop", method="POST", path=rf"^/api/models/{repo}/commit/main$")
    with pytest.raises(httpx2.RemoteProtocolError):
        commit(api, repo, b"1", parent_commit=before)
    made = api.list_repo_commits(repo)
    assert (made[0].title, made[1].commit_id) == ("a", before)
    assert hits(local_hub) == [1]


def test_drop(local_hub: LocalHub, api: HfApi, repo: str):
    before = api.model_info(repo).sha
    local_hub.fault("drop", method="POST", path="/commit/")
    with pytest.raises(httpx2.RemoteProtocolError):
        commit(api, repo, b"1")
    assert api.model_info(repo).sha == before
    assert local_hub.requests()[-2]["status"] is None


@pytest.mark.parametrize("code", [412, 429, 500, 503])
def test_status_before_applying(local_hub: LocalHub, api: HfApi, repo: str, code: int):
    before = api.model_info(repo).sha
    local_hub.fault("status", method="POST", path="/commit/", status=code, retry_after=7)
    with pytest.raises(HfHubHTTPError) as refused:
        commit(api, repo, b"1")
    assert (refused.value.response.status_code, refused.value.response.headers["Retry-After"]) == (code, "7")
    assert api.model_info(repo).sha == before
    assert commit(api, repo, b"1") != before


def test_status_after_applying(local_hub: LocalHub, api: HfApi, repo: str):
    before = api.model_info(repo).sha
    local_hub.fault("status_after", method="POST", path="/commit/", status=500)
    with pytest.raises(HfHubHTTPError) as refused:
        commit(api, repo, b"1")
    assert refused.value.response.status_code == 500
    assert [entry.commit_id for entry in api.list_repo_commits(repo)][1] == before


def test_the_client_itself_overcomes_a_few_refused_uploads(local_hub: LocalHub, api: HfApi, repo: str):
    local_hub.fault("status", method="PUT", path="/_lfs/", status=503, times=2, retry_after=0)
    api.create_commit(repo, [CommitOperationAdd("v.safetensors", BIG[1:])], commit_message="v")
    assert [row["status"] for row in local_hub.requests() if row["method"] == "PUT"][-3:] == [503, 503, 200]


def test_after_and_times(local_hub: LocalHub, api: HfApi, repo: str):
    local_hub.fault("status", path="/revision/main|/model$", status=500, after=1, times=2)
    seen = []
    for _ in range(4):
        try:
            api.model_info(repo)
            seen.append(200)
        except HfHubHTTPError as error:
            seen.append(error.response.status_code)
    assert seen == [200, 500, 500, 200]
    assert [(rule["seen"], rule["hits"]) for rule in local_hub.faults()] == [(4, 2)]
    local_hub.clear_faults()
    assert local_hub.faults() == []


def test_the_client_itself_overcomes_a_truncated_download(local_hub: LocalHub, api: HfApi, repo: str, tmp_path: Path):
    local_hub.fault("truncate", method="GET", path="/resolve/", bytes=1_500_000)
    with pytest.raises(http.client.IncompleteRead):
        fetch(local_hub, repo)
    local_hub.fault("truncate", method="GET", path="/resolve/", bytes=1_500_000)
    assert Path(api.hf_hub_download(repo, "w.safetensors", cache_dir=tmp_path)).read_bytes() == BIG
    assert [row["bytes"] for row in local_hub.requests() if row["method"] == "GET"][-2:] == [1_500_000, len(BIG)]


def test_corrupt(local_hub: LocalHub, repo: str):
    local_hub.fault("corrupt", method="GET", path="/resolve/")
    wrong = fetch(local_hub, repo)
    assert len(wrong) == len(BIG)
    assert wrong != BIG
    assert fetch(local_hub, repo) == BIG


def test_slow(local_hub: LocalHub, api: HfApi, repo: str):
    local_hub.fault("slow", method="GET", path="/resolve/", delay=0.2, bytes_per_second=4_000_000)
    start = time.monotonic()
    assert fetch(local_hub, repo) == BIG
    assert time.monotonic() - start > 0.6
    local_hub.fault("slow", method="PUT", path="/_lfs/", bytes_per_second=4_000_000)
    start = time.monotonic()
    api.create_commit(repo, [CommitOperationAdd("v.safetensors", BIG[::-1])], commit_message="v")
    assert time.monotonic() - start > 0.5


def test_revoke(local_hub: LocalHub, api: HfApi, repo: str):
    local_hub.fault("revoke", method="POST", path="/commit/")
    with pytest.raises(HfHubHTTPError) as refused:
        commit(api, repo, b"1")
    assert refused.value.response.status_code == 401
    with pytest.raises(HfHubHTTPError):
        api.whoami()


def test_no_token_is_ever_listed(local_hub: LocalHub, api: HfApi, repo: str):
    assert local_hub.requests()
    assert "hf_" not in str(local_hub.requests())
    assert "grant" not in str(local_hub.requests())


def test_a_malformed_rule_is_refused(local_hub: LocalHub):
    with pytest.raises(urllib.error.HTTPError) as refused:
        local_hub.fault("explode")
    with refused.value as reply:
        assert reply.status == 400


def test_a_share_of_the_requests_is_struck(local_hub):
    local_hub.fault("status", path="/whoami", times=None, share=0.2, seed=7)
    _, token = local_hub.fresh_user()
    for _ in range(100):
        with contextlib.suppress(HfHubHTTPError):
            local_hub.api(token).whoami()
    (rule,) = local_hub.faults()
    assert rule["seen"] == 100
    assert 10 <= rule["hits"] <= 30


def test_a_late_commit_lands_although_nobody_waits(local_hub):
    name, token = local_hub.fresh_user()
    api = local_hub.api(token)
    api.create_repo(f"{name}/late")
    local_hub.fault("late", path="/commit/", method="POST", delay=0.5)
    url = f"{local_hub.endpoint}/api/models/{name}/late/commit/main"
    lines = [{"key": "header", "value": {"summary": "late", "description": ""}}]
    lines += [{"key": "file", "value": {"path": "a.txt", "content": "YQ==", "encoding": "base64"}}]
    body = "\n".join(json.dumps(line) for line in lines)
    with pytest.raises(httpx2.ReadTimeout):
        httpx2.post(url, content=body, headers={"authorization": f"Bearer {token}"}, timeout=0.1)
    assert len(api.list_repo_commits(f"{name}/late")) == 1
    time.sleep(1.5)
    assert len(api.list_repo_commits(f"{name}/late")) == 2


def test_a_stale_answer_is_the_one_before(local_hub):
    name, token = local_hub.fresh_user()
    api = local_hub.api(token)
    api.create_repo(f"{name}/stale")
    local_hub.fault("stale", path="/refs$", after=1)
    (old,) = api.list_repo_refs(f"{name}/stale").branches
    api.upload_file(path_or_fileobj=b"a", path_in_repo="a.txt", repo_id=f"{name}/stale")
    assert api.list_repo_refs(f"{name}/stale").branches[0].target_commit == old.target_commit
    assert api.list_repo_refs(f"{name}/stale").branches[0].target_commit != old.target_commit
