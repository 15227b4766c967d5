"""Everything that we say to the Hub, said to the local one by the real client."""

import json
import os
import struct
from pathlib import Path

import pytest
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    HfFileSystem,
    hf_hub_url,
)
from huggingface_hub.errors import (
    BadRequestError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers, get_session

from tests.fixtures.hub import LocalHub


@pytest.fixture
def api(local_hub: LocalHub) -> HfApi:
    return local_hub.api(local_hub.fresh_user()[1])


@pytest.fixture
def repo(api: HfApi) -> str:
    return api.create_repo(f"{api.whoami()['name']}/model", private=True).repo_id


BOMB = b"\n".join([b"a0: &a0 [1]", *(b"a%d: &a%d [%s]" % (n, n, b"*a%d," % (n - 1) * 9) for n in range(1, 9))])


def safetensors(values: bytes) -> bytes:
    header = json.dumps({"w": {"dtype": "U8", "shape": [len(values)], "data_offsets": [0, len(values)]}}).encode()
    return struct.pack("<Q", len(header)) + header + values


def commit(api: HfApi, repo: str, files: dict[str, bytes], **options) -> str:
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    return api.create_commit(repo, operations, commit_message=options.pop("commit_message", "files"), **options).oid


def paths(api: HfApi, repo: str, **options) -> set[str]:
    return set(api.list_repo_files(repo, **options)) - {".gitattributes"}


def test_whoami(local_hub: LocalHub):
    name, token = local_hub.fresh_user()
    local_hub.user(name, orgs=("lab",))
    said = local_hub.api(token).whoami()
    assert (said["name"], [org["name"] for org in said["orgs"]]) == (name, ["lab"])
    assert said["auth"]["accessToken"]["role"] == "write"
    assert local_hub.api(local_hub.read_token(name)).whoami()["auth"]["accessToken"]["role"] == "read"


def test_create_exists_delete(local_hub: LocalHub, api: HfApi, repo: str):
    assert api.model_info(repo).private
    assert api.create_repo(repo, exist_ok=True).repo_id == repo
    with pytest.raises(HfHubHTTPError) as refused:
        api.create_repo(repo)
    assert refused.value.response.status_code == 409
    api.update_repo_settings(repo, visibility="public")
    assert local_hub.api().model_info(repo).private is False
    api.delete_repo(repo)
    assert not api.repo_exists(repo)
    with pytest.raises(RepositoryNotFoundError):
        api.delete_repo(repo)
    assert paths(api, api.create_repo(repo).repo_id) == set()


def test_datasets_are_apart_from_models(api: HfApi, repo: str):
    api.create_repo(repo, repo_type="dataset")
    api.upload_file(path_or_fileobj=b"{}\n", path_in_repo="fin.jsonl", repo_id=repo, repo_type="dataset")
    api.upload_file(path_or_fileobj=os.urandom(99), path_in_repo="x.parquet", repo_id=repo, repo_type="dataset")
    assert paths(api, repo, repo_type="dataset") == {"fin.jsonl", "x.parquet"}
    assert paths(api, repo) == set()
    assert Path(api.hf_hub_download(repo, "fin.jsonl", repo_type="dataset")).read_bytes() == b"{}\n"
    with pytest.raises(BadRequestError):
        api.create_repo(repo, repo_type="space", space_sdk="static")


def test_upload_and_information(api: HfApi, repo: str):
    weights = safetensors(os.urandom(4096))
    first = api.upload_file(path_or_fileobj=b'{"a": 1}', path_in_repo="config.json", repo_id=repo).oid
    said = {"commit_message": "Weights", "commit_description": "Why: b"}
    second = commit(api, repo, {"sub/model.safetensors": weights}, **said)
    info = api.model_info(repo, files_metadata=True)
    assert info.sha == second
    sizes = {file.rfilename: (file.size, file.lfs.sha256 if file.lfs else None) for file in info.siblings or ()}
    assert sizes["config.json"] == (8, None)
    assert sizes["sub/model.safetensors"] == (len(weights), CommitOperationAdd("x", weights).upload_info.sha256.hex())
    assert paths(api, repo, revision=first) == {"config.json"}
    history = api.list_repo_commits(repo)
    assert [entry.commit_id for entry in history[:2]] == [second, first]
    assert (history[0].title, history[0].message, history[0].authors) == ("Weights", "Why: b", [info.author])
    assert history[-1].title == "initial commit"


def test_the_card_is_read_and_checked(api: HfApi, repo: str):
    card = "---\nlicense: mit\nbase_model: org/base\ntags: [merge]\n---\n# Hello\n"
    commit(api, repo, {"README.md": card.encode()})
    info = api.model_info(repo)
    assert info.card_data is not None
    assert (info.card_data.license, info.card_data.base_model) == ("mit", "org/base")
    assert {"merge", "license:mit"} <= set(info.tags or ())
    for wrong in (b"a: [", BOMB, b"a: &a [*a]", b"- 1", b"a: 2020-99-99"):
        with pytest.raises(ValueError, match="Invalid metadata"):
            commit(api, repo, {"README.md": b"---\n" + wrong + b"\n---\n"})
    commit(api, repo, {"README.md": b"---\nlicense: mit\nday: 2020-01-01\nworst: .inf\na: &a [1]\nb: *a\n---\n"})
    assert api.model_info(repo).card_data.to_dict() == {"license": "mit", "a": [1], "b": [1]}


@pytest.mark.parametrize("size", [1_000_000, 12_345_678])
def test_lfs_basic_and_multipart(local_hub: LocalHub, api: HfApi, repo: str, tmp_path: Path, size: int):
    content = os.urandom(size)
    commit(api, repo, {"model.safetensors": content})
    puts = [row["path"] for row in local_hub.requests() if row["method"] == "PUT"]
    assert puts == (["/_lfs/upload"] if size < 8_000_000 else ["/_lfs/part"] * 3)
    assert Path(api.hf_hub_download(repo, "model.safetensors", local_dir=tmp_path)).read_bytes() == content
    local_hub.clear_requests()
    commit(api, repo, {"again.safetensors": content})
    assert not [row for row in local_hub.requests() if row["method"] == "PUT"]


def test_a_commit_with_the_same_files_changes_nothing(api: HfApi, repo: str):
    files = {"a.json": b"{}", "b.safetensors": safetensors(b"12")}
    assert commit(api, repo, files) == commit(api, repo, files)


def test_deletions_and_copies(api: HfApi, repo: str):
    commit(api, repo, {"a.json": b"1", "d/b.json": b"2", "d/e/c.json": b"3", "w.safetensors": safetensors(b"1")})
    api.create_commit(
        repo,
        [
            CommitOperationDelete("a.json"), CommitOperationDelete("d/", is_folder=True),
            CommitOperationCopy("w.safetensors", "v.safetensors"),
        ],
        commit_message="less",
    )  # fmt: skip
    assert paths(api, repo) == {"w.safetensors", "v.safetensors"}
    with pytest.raises(RemoteEntryNotFoundError):
        api.delete_file("a.json", repo)


def test_a_stale_parent_is_refused(api: HfApi, repo: str):
    head = commit(api, repo, {"a": b"1"})
    assert commit(api, repo, {"a": b"2"}, parent_commit=head) == api.model_info(repo).sha
    with pytest.raises(HfHubHTTPError) as refused:
        commit(api, repo, {"a": b"3"}, parent_commit=head)
    assert refused.value.response.status_code == 412
    assert Path(api.hf_hub_download(repo, "a")).read_bytes() == b"2"


def test_pull_requests_are_refused_clearly(api: HfApi, repo: str):
    with pytest.raises(BadRequestError, match="no pull requests"):
        commit(api, repo, {"a": b"1"}, create_pr=True)


def test_branches_and_tags(api: HfApi, repo: str, tmp_path: Path):
    first = commit(api, repo, {"a": b"1"})
    api.create_branch(repo, branch="exp/1")
    api.create_branch(repo, branch="exp/1", exist_ok=True)
    api.create_tag(repo, tag="v1", revision=first)
    second = commit(api, repo, {"a": b"2", "d/b": b"3"}, revision="exp/1")
    refs = api.list_repo_refs(repo, include_pull_requests=True)
    assert {ref.name: ref.target_commit for ref in refs.branches} == {"main": first, "exp/1": second}
    assert {ref.name: (ref.ref, ref.target_commit) for ref in refs.tags} == {"v1": ("refs/tags/v1", first)}
    assert paths(api, repo, revision="exp/1") == {"a", "d/b"}
    assert [item.path for item in api.list_repo_tree(repo, "d", revision="exp/1")] == ["d/b"]
    for revision, content in {"exp/1": b"2", "v1": b"1", "main": b"1", second: b"2"}.items():
        assert Path(api.hf_hub_download(repo, "a", revision=revision, cache_dir=tmp_path)).read_bytes() == content
    with pytest.raises(HfHubHTTPError):
        api.create_branch(repo, branch="exp/1")
    with pytest.raises(HfHubHTTPError):
        api.create_tag(repo, tag="v1")
    api.delete_branch(repo, branch="exp/1")
    api.delete_tag(repo, tag="v1")
    with pytest.raises(RevisionNotFoundError):
        api.model_info(repo, revision="exp/1")
    with pytest.raises(RevisionNotFoundError):
        commit(api, repo, {"a": b"2"}, revision="v1")
    with pytest.raises(HfHubHTTPError):
        api.delete_branch(repo, branch="main")


def test_trees_and_histories_come_in_pages(local_hub: LocalHub, api: HfApi, repo: str):
    names = {f"d{n % 3}/f{n:03}.json" for n in range(45)}
    commit(api, repo, {name: name.encode() for name in names})
    assert paths(api, repo) == names
    assert len(list(api.list_repo_tree(repo, "d0"))) == 15
    pages = [row for row in local_hub.requests() if "/tree/main" in row["path"]]
    assert len(pages) == 4  # 49 rows in pages of 20, then 15 rows in one
    for number in range(22):
        commit(api, repo, {"n": str(number).encode()}, commit_message=str(number))
    assert [entry.title for entry in api.list_repo_commits(repo)[:22]] == [str(n) for n in reversed(range(22))]


def test_paths_info(api: HfApi, repo: str):
    commit(api, repo, {"a b/é.json": b"12", "w.safetensors": safetensors(b"1")})
    found = {item.path: item for item in api.get_paths_info(repo, ["a b", "a b/é.json", "w.safetensors", "none"])}
    assert set(found) == {"a b", "a b/é.json", "w.safetensors"}
    assert found["a b/é.json"].size == 2
    assert found["w.safetensors"].lfs is not None


@pytest.mark.parametrize("revision", ["tag", "branch/x", "sha"])
def test_snapshot_download(api: HfApi, repo: str, tmp_path: Path, revision: str):
    files = {"a.json": b"{}", "d/é b.json": b"1", "w.safetensors": safetensors(os.urandom(100_000))}
    sha = commit(api, repo, files)
    api.create_tag(repo, tag="tag")
    api.create_branch(repo, branch="branch/x")
    commit(api, repo, {"a.json": b"later"})
    place = Path(api.snapshot_download(repo, revision=sha if revision == "sha" else revision, cache_dir=tmp_path))
    assert place.name == sha
    assert {path: (place / path).read_bytes() for path in files} == files


def test_ranges(local_hub: LocalHub, api: HfApi, repo: str):
    content = os.urandom(3_000_000)
    commit(api, repo, {"w.safetensors": content})
    url = hf_hub_url(repo, "w.safetensors", endpoint=local_hub.endpoint)
    headers = build_hf_headers(token=api.token)

    def read(span: str):
        return get_session().get(url, headers={**headers, "Range": f"bytes={span}"})

    part = read("10-1000009")
    assert (part.status_code, part.headers["Content-Range"]) == (206, "bytes 10-1000009/3000000")
    assert part.content == content[10:1000010]
    assert read("2999990-").content == content[-10:]
    assert read("-5").content == content[-5:]
    assert read("3000000-").status_code == 416
    logged = [(row["range"], row["bytes"]) for row in local_hub.requests() if row["range"]]
    assert logged[0] == ("bytes=10-1000009", 1_000_000)


def test_safetensors_headers_without_the_weights(local_hub: LocalHub, api: HfApi, repo: str):
    commit(api, repo, {"model.safetensors": safetensors(os.urandom(2_000_000))})
    local_hub.clear_requests()
    found = api.get_safetensors_metadata(repo)
    assert found.files_metadata["model.safetensors"].tensors["w"].shape == [2_000_000]
    assert sum(row["bytes"] for row in local_hub.requests()) < 200_000


def test_file_system_reads(local_hub: LocalHub, api: HfApi, repo: str):
    commit(api, repo, {"d/x.txt": b"hello"})
    files = HfFileSystem(endpoint=local_hub.endpoint, token=api.token, skip_instance_cache=True)
    assert files.read_text(f"{repo}/d/x.txt") == "hello"


def test_missing_things(api: HfApi, repo: str):
    with pytest.raises(RemoteEntryNotFoundError):
        api.hf_hub_download(repo, "none.json")
    with pytest.raises(RevisionNotFoundError):
        api.hf_hub_download(repo, "a", revision="none")
    with pytest.raises(RevisionNotFoundError):
        api.model_info(repo, revision="0" * 40)
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("nobody/none")
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("none")
    assert not api.file_exists(repo, "none.json")
    with pytest.raises(RemoteEntryNotFoundError):
        list(api.list_repo_tree(repo, "none"))
