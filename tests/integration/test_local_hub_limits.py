"""What must hold at the edges: memory, restarts, races, hostile addresses."""

import hashlib
import http.client
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError

from tests.fixtures.hub import LocalHub

MB = 1_000_000


@pytest.fixture
def api(local_hub: LocalHub) -> HfApi:
    return local_hub.api(local_hub.fresh_user()[1])


@pytest.fixture
def repo(api: HfApi) -> str:
    return api.create_repo(f"{api.whoami()['name']}/model").repo_id


def call(local_hub: LocalHub, method: str, target: str, *, token: str = "", body: bytes = b"") -> tuple[int, bytes]:
    """One request whose target goes out exactly as written."""
    connection = http.client.HTTPConnection(local_hub.endpoint.removeprefix("http://"), timeout=30)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        connection.request(method, target, body=body or None, headers=headers)
        reply = connection.getresponse()
        return reply.status, reply.read()
    finally:
        connection.close()


def send_commit(local_hub: LocalHub, api: HfApi, repo: str, *operations: dict, **header) -> int:
    lines = [{"key": "header", "value": {"summary": "x", **header}}, *operations]
    body = "\n".join(map(json.dumps, lines)).encode()
    return call(local_hub, "POST", f"/api/models/{repo}/commit/main", token=str(api.token), body=body)[0]


def regular(path: object, content: str = "eA==") -> dict:
    return {"key": "file", "value": {"path": path, "content": content, "encoding": "base64"}}


class Peak:
    """The largest anonymous memory of a process while the block runs, in bytes."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.start = self.bytes = self._now()

    def __enter__(self) -> "Peak":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            self.bytes = max(self.bytes, self._now())

    def _now(self) -> int:
        lines = Path(f"/proc/{self._pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


@pytest.mark.slow
@pytest.mark.parametrize("transfer", ["basic", "multipart"])
def test_memory_stays_bounded_for_large_files(tmp_path: Path, transfer: str):
    hub = LocalHub(tmp_path / "hub", multipart_bytes=8 * MB if transfer == "multipart" else 10**12)
    hub.start()
    api = hub.api(hub.user("ann"))
    source = tmp_path / "w.safetensors"
    with source.open("wb") as stream:
        for number in range(300):
            stream.write(hashlib.sha256(str(number).encode()).digest() * (MB // 32))
    api.create_repo("ann/m")
    with Peak(hub.pid) as peak:
        api.create_commit("ann/m", [CommitOperationAdd("w.safetensors", source)], commit_message="w")
        place = Path(api.hf_hub_download("ann/m", "w.safetensors", local_dir=tmp_path / "down"))
    hub.stop()
    assert place.stat().st_size == source.stat().st_size == 300 * MB
    assert peak.bytes - peak.start < 40 * MB


def test_a_restart_keeps_everything(local_hub: LocalHub, api: HfApi, repo: str, tmp_path: Path):
    files = {"a.json": b"{}", "w.safetensors": b"12345678"}
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    sha = api.create_commit(repo, operations, commit_message="all").oid
    api.create_branch(repo, branch="exp/1")
    api.create_tag(repo, tag="v1")
    api.update_repo_settings(repo, visibility="private", gated="auto")
    before = api.list_repo_refs(repo)
    local_hub.restart()
    assert api.list_repo_refs(repo) == before
    info = api.model_info(repo)
    assert (info.sha, info.private, info.gated) == (sha, True, "auto")
    place = Path(api.snapshot_download(repo, revision="exp/1", cache_dir=tmp_path))
    assert {path: (place / path).read_bytes() for path in files} == files


def test_a_kill_leaves_nothing_half_done(tmp_path: Path):
    hub = LocalHub(tmp_path / "hub")
    hub.start()
    api = hub.api(hub.user("ann"))
    api.create_repo("ann/m")
    for number in range(2):
        sha = api.upload_file(path_or_fileobj=str(number).encode(), path_in_repo="n", repo_id="ann/m").oid
        hub.kill()
        hub.start()
        assert api.model_info("ann/m").sha == sha
    assert len(api.list_repo_commits("ann/m")) == 3
    hub.stop()


def test_of_two_commits_with_one_parent_exactly_one_wins(local_hub: LocalHub, api: HfApi, repo: str):
    for attempt in range(5):
        head = api.model_info(repo).sha
        results: list[int] = []

        def send(number: int, head: str | None = head, results: list[int] = results) -> None:
            results.append(send_commit(local_hub, api, repo, regular(f"f{number}"), parentCommit=head))

        threads = [threading.Thread(target=send, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(results) == [200, 412, 412, 412], attempt
    assert len(api.list_repo_commits(repo)) == 6


def test_commits_without_a_parent_are_all_kept(local_hub: LocalHub, api: HfApi, repo: str):
    threads = [
        threading.Thread(target=send_commit, args=(local_hub, api, repo, regular(f"f{number}"))) for number in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(api.list_repo_files(repo)) == {".gitattributes", *(f"f{number}" for number in range(6))}


@pytest.mark.parametrize(
    "path",
    [
        "../x", "/etc/passwd", "a/../../x", "a\0b", ".git/config", "a/.git/hooks", "a\\..\\b", "", 7, None, "a//b",
        "\ud800",
    ],
)  # fmt: skip
def test_hostile_paths_in_a_commit_are_refused(local_hub: LocalHub, api: HfApi, repo: str, path: object):
    head = api.model_info(repo).sha
    assert send_commit(local_hub, api, repo, regular(path)) == 400
    assert api.model_info(repo).sha == head


def test_a_file_cannot_stand_where_a_directory_does(local_hub: LocalHub, api: HfApi, repo: str):
    assert send_commit(local_hub, api, repo, regular("a/b")) == 200
    assert send_commit(local_hub, api, repo, regular("a")) == 400
    assert send_commit(local_hub, api, repo, regular("a/b/c")) == 400


@pytest.mark.parametrize(
    "target",
    [
        "/{repo}/resolve/main/../../../../../accounts.json", "/{repo}/resolve/main/%2e%2e%2f%2e%2e%2faccounts.json",
        "/{repo}/resolve/main/%2Fetc%2Fpasswd", "/{repo}/resolve/main//etc/passwd", "/{repo}/resolve/main/%00",
        "/{repo}/resolve/..%2F..%2Frefs.json/x", "/%2e%2e/%2e%2e/resolve/main/accounts.json",
        "/..%2F..%2F/x/resolve/main/secret", "/{repo}/resolve/%252e%252e/x", "/api/models/%2e%2e/%2e%2e",
        "/api/models/..%2F..%2F..%2Fetc/passwd", "/api/models/%00/%00", "/api/models/x/%2e%2e%2frefs.json",
        "/{repo}/resolve/main/.gitattributes/../../refs.json", "/accounts.json", "/secret", "/%2e%2e/secret",
    ],
)  # fmt: skip
def test_hostile_addresses_find_nothing(local_hub: LocalHub, api: HfApi, repo: str, target: str):
    for token in ("", str(api.token)):
        status, body = call(local_hub, "GET", target.format(repo=repo), token=token)
        assert status in {400, 401, 404}
        assert b"tokens" not in body
        assert b"root:" not in body


@pytest.mark.parametrize("name", ["..", "../../x", "a/b", ".git", "x.git", "a\0b", "", None, 3])
def test_hostile_names_create_nothing(local_hub: LocalHub, api: HfApi, name: object):
    body = json.dumps({"name": name}).encode()
    assert call(local_hub, "POST", "/api/repos/create", token=str(api.token), body=body)[0] == 400


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b"\xff", b'{"key": 1}', b'{"key": "header", "value": {}}', b'{"key": "x", "value": {"path": "a"}}',
     b"[" * 100_000, b'{"key": "header", "value": {"summary": "\\ud800"}}'],
)  # fmt: skip
def test_malformed_commits_are_refused(local_hub: LocalHub, api: HfApi, repo: str, body: bytes):
    assert call(local_hub, "POST", f"/api/models/{repo}/commit/main", token=str(api.token), body=body)[0] == 400


def test_a_large_regular_file_is_refused(local_hub: LocalHub, api: HfApi, repo: str):
    assert send_commit(local_hub, api, repo, regular("big.json", "A" * 16 * MB)) == 413


def test_an_upload_of_other_content_is_refused(local_hub: LocalHub, api: HfApi, repo: str):
    oid = hashlib.sha256(b"right").hexdigest()
    body = json.dumps({"operation": "upload", "transfers": ["basic"], "objects": [{"oid": oid, "size": 5}]}).encode()
    _, said = call(local_hub, "POST", f"/{repo}.git/info/lfs/objects/batch", token=str(api.token), body=body)
    href = json.loads(said)["objects"][0]["actions"]["upload"]["href"].removeprefix(local_hub.endpoint)
    for content, status in ((b"wrong", 400), (b"too long", 400), (b"no", 400), (b"right", 200)):
        assert call(local_hub, "PUT", href, body=content)[0] == status
    lfs = {"key": "lfsFile", "value": {"path": "w", "algo": "sha256", "oid": oid, "size": 5}}
    assert send_commit(local_hub, api, repo, lfs) == 200
    assert list((local_hub.root / "uploads").glob("*")) == []


def test_the_server_says_its_endpoint_and_offers_no_faults_by_itself(tmp_path: Path):
    command = [sys.executable, "-m", "app.local.hub", "--root", str(tmp_path / "hub")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        endpoint = json.loads(process.stdout.readline())["endpoint"]
        try:
            connection = http.client.HTTPConnection(endpoint.removeprefix("http://"), timeout=10)
            connection.request("GET", "/_faults")
            assert connection.getresponse().status == 404
            connection.close()
        finally:
            process.terminate()
    assert process.returncode in {0, -15}
    assert (tmp_path / "hub").stat().st_mode & 0o077 == 0


@pytest.fixture(autouse=True)
def _nothing_escapes(local_hub: LocalHub) -> Iterator[None]:
    """No test leaves anything beside the root."""
    before = sorted(path.name for path in local_hub.root.parent.iterdir())
    yield
    assert sorted(path.name for path in local_hub.root.parent.iterdir()) == before


def test_a_dropped_upload_can_be_sent_again(local_hub: LocalHub, api: HfApi, repo: str):
    local_hub.fault("drop", method="PUT", path="/_lfs/part", after=1)
    content = bytes(12 * MB)
    try:
        api.create_commit(repo, [CommitOperationAdd("w.safetensors", content)], commit_message="w")
    except (HfHubHTTPError, RuntimeError, OSError):
        api.create_commit(repo, [CommitOperationAdd("w.safetensors", content)], commit_message="w")
    info = api.get_paths_info(repo, ["w.safetensors"])[0]
    assert info.size == len(content)
