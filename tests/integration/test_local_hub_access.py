"""Who may see, read and write what, as the client experiences it."""

import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

from tests.fixtures.hub import LocalHub


@pytest.fixture
def owner(local_hub: LocalHub) -> HfApi:
    return local_hub.api(local_hub.fresh_user("owner")[1])


@pytest.fixture
def stranger(local_hub: LocalHub) -> HfApi:
    return local_hub.api(local_hub.fresh_user("stranger")[1])


@pytest.fixture
def repo(owner: HfApi) -> str:
    repo = owner.create_repo(f"{owner.whoami()['name']}/model").repo_id
    owner.upload_file(path_or_fileobj=b"secret", path_in_repo="a.json", repo_id=repo)
    return repo


def status(call, *arguments, **options) -> int:
    with pytest.raises(HfHubHTTPError) as refused:
        call(*arguments, **options)
    return refused.value.response.status_code


def test_a_private_repository_looks_missing_to_others(local_hub: LocalHub, owner: HfApi, stranger: HfApi, repo: str):
    owner.update_repo_settings(repo, visibility="private")
    for api, expected in ((stranger, 404), (local_hub.api(), 401)):
        for name in (repo, "nobody/none"):
            with pytest.raises(RepositoryNotFoundError) as refused:
                api.model_info(name)
            assert refused.value.response.status_code == expected
        with pytest.raises(RepositoryNotFoundError):
            api.hf_hub_download(repo, "a.json")
        with pytest.raises(RepositoryNotFoundError):
            api.auth_check(repo)
        with pytest.raises(RepositoryNotFoundError):
            api.upload_file(path_or_fileobj=b"x", path_in_repo="b", repo_id=repo)
    owner.auth_check(repo)


def test_a_public_repository_is_read_by_all_and_written_by_its_owner(
    local_hub: LocalHub, owner: HfApi, stranger: HfApi, repo: str
):
    for api in (local_hub.api(), stranger):
        assert Path(api.hf_hub_download(repo, "a.json")).read_bytes() == b"secret"
        api.auth_check(repo)
    writes = [
        lambda api: api.upload_file(path_or_fileobj=b"x", path_in_repo="b", repo_id=repo),
        lambda api: api.create_branch(repo, branch="b"),
        lambda api: api.create_tag(repo, tag="t"),
        lambda api: api.update_repo_settings(repo, visibility="private"),
        lambda api: api.delete_repo(repo),
        lambda api: api.grant_access(repo, "someone"),
        lambda api: api.create_repo(repo.partition("/")[0] + "/other"),
    ]
    reader = local_hub.api(local_hub.read_token(owner.whoami()["name"]))
    for write in writes:
        assert status(write, stranger) == 403
        assert status(write, reader) == 403
    assert status(writes[1], local_hub.api()) == 401
    assert owner.list_repo_refs(repo).tags == []


def test_members_of_an_organisation_write_to_it(local_hub: LocalHub, stranger: HfApi):
    name, token = local_hub.fresh_user()
    org = f"org-{name}"
    assert local_hub.user(name, orgs=(org,)) == token
    repo = local_hub.api(token).create_repo(f"{org}/model", private=True).repo_id
    local_hub.api(token).auth_check(repo)
    colleague = local_hub.user(f"{name}-2", orgs=(org,))
    local_hub.api(colleague).upload_file(path_or_fileobj=b"x", path_in_repo="b", repo_id=repo)
    with pytest.raises(RepositoryNotFoundError):
        stranger.model_info(repo)


def test_a_gated_repository_is_known_but_closed(local_hub: LocalHub, owner: HfApi, stranger: HfApi, repo: str):
    owner.update_repo_settings(repo, gated="manual")
    assert stranger.model_info(repo).gated == "manual"
    assert "a.json" in stranger.list_repo_files(repo)
    for api, expected in ((stranger, 403), (local_hub.api(), 401)):
        for call in (
            lambda api=api: api.hf_hub_download(repo, "a.json"), lambda api=api: api.auth_check(repo),
            lambda api=api: api.snapshot_download(repo),
        ):  # fmt: skip
            with pytest.raises(GatedRepoError) as refused:
                call()
            assert refused.value.response.status_code == expected
    owner.grant_access(repo, stranger.whoami()["name"])
    assert Path(stranger.hf_hub_download(repo, "a.json")).read_bytes() == b"secret"
    with pytest.raises(GatedRepoError):
        local_hub.api().auth_check(repo)


def test_a_bad_token_is_told_apart_from_a_missing_repository(local_hub: LocalHub, repo: str):
    api = local_hub.api("hf_unknown")
    with pytest.raises(HfHubHTTPError) as refused:
        api.whoami()
    assert refused.value.response.status_code == 401
    with pytest.raises(HfHubHTTPError) as refused:
        api.model_info(repo)
    assert not isinstance(refused.value, RepositoryNotFoundError)


def test_a_revoked_token_is_worthless_and_replaced(local_hub: LocalHub):
    name, token = local_hub.fresh_user()
    local_hub.revoke_token(token)
    assert status(local_hub.api(token).whoami) == 401
    renewed = local_hub.user(name)
    assert renewed != token
    assert local_hub.api(renewed).whoami()["name"] == name
    assert (local_hub.root / "accounts.json").stat().st_mode & 0o777 == 0o600


def test_another_process_may_add_users_meanwhile(local_hub: LocalHub):
    name, _ = local_hub.fresh_user()
    code = "import sys; from pathlib import Path; from app.local.hub import HubStore\n"
    code += "print(HubStore(Path(sys.argv[1])).ensure_user(sys.argv[2]))"
    command = [sys.executable, "-c", code, str(local_hub.root)]
    added = [subprocess.Popen([*command, f"{name}-{n}"], stdout=subprocess.PIPE, text=True) for n in range(3)]
    for number, process in enumerate(added):
        token = process.communicate(timeout=60)[0].strip()
        assert local_hub.api(token).whoami()["name"] == f"{name}-{number}"


def test_lfs_objects_do_not_cross_repositories(local_hub: LocalHub, owner: HfApi, stranger: HfApi, repo: str):
    """Knowing the digest of somebody's private weights must not be enough to have them."""
    owner.update_repo_settings(repo, visibility="private")
    weights = CommitOperationAdd("w.safetensors", b"private weights")
    owner.create_commit(repo, [weights], commit_message="w")
    mine = stranger.create_repo(f"{stranger.whoami()['name']}/mine").repo_id
    lines = [
        {"key": "header", "value": {"summary": "theft"}},
        {"key": "lfsFile", "value": {"path": "w", "oid": weights.upload_info.sha256.hex(), "size": 15}},
    ]
    body = "\n".join(map(json.dumps, lines)).encode()
    request = urllib.request.Request(
        f"{local_hub.endpoint}/api/models/{mine}/commit/main", data=body, method="POST",
        headers={"Authorization": f"Bearer {stranger.token}"},
    )  # fmt: skip
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request)
    with refused.value as reply:
        assert reply.status == 400


def test_upload_addresses_cannot_be_forged(local_hub: LocalHub):
    request = urllib.request.Request(f"{local_hub.endpoint}/_lfs/upload?grant=forged", data=b"x", method="PUT")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request)
    with refused.value as reply:
        assert reply.status == 403
