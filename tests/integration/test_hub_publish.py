"""Publishing to a real Hub server over HTTP, with everything that can happen to the answer of a commit."""

import json
import time
from pathlib import Path

import pytest

from app.errors import Code, SpearError
from app.hub.client import Hub
from app.hub.commits import confirmed
from app.hub.download import Stopped
from app.hub.publish import Published, find_commit, prepare, publish, reconcile
from app.recipes import Target
from tests.fixtures.checkpoints import checkpoint, push

COMMIT = "/commit/main$"
JOB = "mrg_01"


class Desk:
    """A user with a Hub client, a target and a folder to publish."""

    def __init__(self, local_hub, folder: Path) -> None:
        self.server = local_hub
        self.name, self.token = local_hub.fresh_user("pub")
        self.hub = Hub(local_hub.endpoint, self.token, timeout_seconds=2)
        self.api = local_hub.api(self.token)
        self.target = Target(repo=f"{self.name}/restored")
        self.folder = folder
        self.recorded: list[str] = []
        self.checked = 0
        self.write(JOB)

    def write(self, job: str, *, shards: int = 2) -> None:
        for old in self.folder.iterdir():
            old.unlink()
        for path, data in checkpoint(shards=shards, seed=len(job)).items():
            (self.folder / path).write_bytes(data)
        (self.folder / "README.md").write_text("---\nlicense: mit\n---\n# restored\n")
        (self.folder / "merge_manifest.json").write_text(json.dumps({"job": job}))

    def publish(self, job: str = JOB, **changes) -> Published:
        options = {
            "title": f"Merge {job}", "record": self.recorded.append, "check_lease": self._check,
            "progress": lambda _: None, "stop": lambda: False, "deadline_seconds": 20, **changes,
        }
        return publish(self.hub, self.target, self.folder, job_id=job, **options)

    def commits(self, job: str = JOB) -> list[str]:
        """The oids of all commits on the target that bear the job."""
        found = self.api.list_repo_commits(self.target.repo)
        return [commit.commit_id for commit in found if f"Merge-Job: {job} " in commit.message]

    def _check(self) -> None:
        self.checked += 1


@pytest.fixture
def desk(local_hub, tmp_path):
    desk = Desk(local_hub, tmp_path)
    yield desk
    desk.hub.close()


def refused(code: Code, call) -> SpearError:
    with pytest.raises(SpearError) as caught:
        call()
    assert caught.value.code is code
    return caught.value


def test_a_new_target_is_made_and_holds_exactly_the_folder(desk):
    seen: list[int] = []
    published = desk.publish(progress=seen.append)
    assert desk.commits() == [published.commit]
    info = desk.api.model_info(desk.target.repo, files_metadata=True)
    assert info.private is True
    assert info.sha == published.commit
    names = {path.name for path in desk.folder.iterdir()}
    assert {s.rfilename for s in info.siblings} - {".gitattributes"} == names
    assert sum(seen) == sum(path.stat().st_size for path in desk.folder.iterdir())
    assert len(desk.recorded) == desk.checked == 1
    assert published.url == f"{desk.hub.endpoint}/{desk.target.repo}/tree/{published.commit}"
    commit = desk.api.list_repo_commits(desk.target.repo)[0]
    assert commit.message.splitlines()[-1] == f"Merge-Job: {JOB} {published.manifest_sha256}"


def test_stale_weights_and_indexes_go_with_the_same_commit_and_all_else_stays(desk):
    old = {
        **checkpoint(shards=3), "pytorch_model.bin": b"old", "onnx/model.onnx": b"old", "notes.txt": b"stays",
        "pytorch_model.bin.index.json": b"{}", "vocab.json": b"{}",
    }
    push(desk.api, desk.target.repo, old)
    before = len(desk.api.list_repo_commits(desk.target.repo))
    desk.publish()
    files = set(desk.api.list_repo_files(desk.target.repo)) - {".gitattributes"}
    assert files == {path.name for path in desk.folder.iterdir()} | {"notes.txt", "vocab.json"}
    assert len(desk.api.list_repo_commits(desk.target.repo)) == before + 1


def test_an_identical_result_still_makes_a_commit_that_bears_its_job(desk):
    first = desk.publish()
    (desk.folder / "merge_manifest.json").write_text(json.dumps({"job": "mrg_02"}))
    second = desk.publish("mrg_02")
    assert first.commit != second.commit
    assert desk.commits("mrg_02") == [second.commit]


def test_a_job_that_published_before_is_found_and_not_repeated(desk):
    first = desk.publish()
    desk.server.clear_requests()
    assert desk.publish() == first
    assert desk.publish(parent=desk.recorded[0]) == first
    assert not [r for r in desk.server.requests() if r["method"] != "GET"]
    assert find_commit(desk.hub, desk.target, JOB) == first.commit
    assert find_commit(desk.hub, desk.target, JOB, since=first.commit) is None
    assert find_commit(desk.hub, desk.target, "mrg_0") is None
    assert reconcile(desk.hub, desk.target, JOB) == first


def test_another_branch_is_made_and_main_is_left_alone(desk):
    push(desk.api, desk.target.repo, checkpoint())
    main = desk.api.model_info(desk.target.repo).sha
    desk.target = Target(repo=desk.target.repo, branch="exp/1")
    published = desk.publish()
    assert desk.api.model_info(desk.target.repo).sha == main
    assert desk.api.model_info(desk.target.repo, revision="exp/1").sha == published.commit


@pytest.mark.parametrize(
    "fault",
    [
        {"action": "apply_then_drop"},
        {"action": "status_after", "status": 500},
        {"action": "status_after", "status": 504},
        {"action": "status", "status": 500},
        {"action": "status", "status": 412},
        {"action": "status", "status": 409},
        {"action": "status", "status": 429, "retry_after": 1},
        {"action": "drop"},
        {"action": "drop", "times": 3},
        {"action": "slow", "delay": 3},
    ],
    ids=lambda fault: "-".join(map(str, fault.values())),
)
def test_whatever_happens_to_the_answer_there_is_one_commit(desk, fault):
    desk.server.fault(path=COMMIT, method="POST", **fault)
    published = desk.publish()
    assert desk.commits() == [published.commit]
    assert len(desk.recorded) == 1
    assert desk.server.faults()[0]["hits"] == fault.get("times", 1)


@pytest.mark.parametrize("path", ["/preupload/", "/objects/batch", "/lfs/", "/refs$", "/commits/main$", "/resolve/"])
def test_trouble_on_the_way_to_a_commit_is_overcome(desk, path):
    prepare(desk.hub, desk.target)
    desk.server.fault("status", path=path, status=503)
    desk.server.fault("drop", path=path)
    published = desk.publish()
    assert desk.commits() == [published.commit]


def test_the_parent_guards_against_somebody_elses_commit(desk):
    prepare(desk.hub, desk.target)
    foreign = []

    def record(_parent: str) -> None:
        foreign.append(push(desk.api, desk.target.repo, {"theirs.txt": b"1"}))

    error = refused(Code.TARGET_MOVED, lambda: desk.publish(record=record))
    assert error.names["head"] == foreign[0]
    assert desk.commits() == []


def test_a_recorded_parent_that_is_not_the_head_any_more_is_refused(desk):
    parent = prepare(desk.hub, desk.target)
    push(desk.api, desk.target.repo, {"theirs.txt": b"1"})
    refused(Code.TARGET_MOVED, lambda: desk.publish(parent=parent))
    assert desk.recorded == []


def test_a_late_commit_of_a_lost_attempt_is_found_by_the_next(desk):
    """The first attempt dies after sending; the second begins with the recorded parent."""
    desk.server.fault("apply_then_drop", path=COMMIT, method="POST")
    desk.server.fault("status", path="/commits/main$", status=503, times=None, after=1)
    error = refused(Code.HUB_UNAVAILABLE, lambda: desk.publish(deadline_seconds=0.5))
    assert error.names["unclear"] is True
    desk.server.clear_faults()
    published = desk.publish(parent=desk.recorded[0])
    assert desk.commits() == [published.commit]


def test_no_commit_without_the_lease(desk):
    class LeaseLostError(Exception):
        pass

    def lost() -> None:
        raise LeaseLostError

    with pytest.raises(LeaseLostError):
        desk.publish(check_lease=lost)
    assert desk.commits() == []


def test_a_stop_before_the_record_leaves_no_commit(desk):
    with pytest.raises(Stopped):
        desk.publish(stop=lambda: True)
    assert desk.recorded == []
    assert desk.commits() == []


def test_a_hub_that_never_answers_ends_at_the_deadline_as_unclear(desk):
    prepare(desk.hub, desk.target)
    desk.server.fault("status", path=COMMIT, method="POST", status=503, times=None)
    begin = time.monotonic()
    error = refused(Code.HUB_UNAVAILABLE, lambda: desk.publish(deadline_seconds=2))
    assert time.monotonic() - begin < 8
    assert error.names["unclear"] is True
    assert error.names["parent"] == desk.recorded[0]
    assert desk.commits() == []


def test_a_refusal_is_not_repeated(desk):
    prepare(desk.hub, desk.target)
    desk.server.fault("status", path=COMMIT, method="POST", status=403, times=None)
    refused(Code.REPO_ACCESS_DENIED, desk.publish)
    assert desk.server.faults()[0]["hits"] == 1


def test_a_revoked_token_is_told_without_the_token(desk):
    prepare(desk.hub, desk.target)
    desk.server.fault("revoke", path=COMMIT, method="POST")
    error = refused(Code.REPO_ACCESS_DENIED, desk.publish)
    assert desk.token not in f"{error}{error.names}{desk.hub!r}"


def test_a_commit_with_other_bytes_is_not_passed_off_as_ours(desk):
    published = desk.publish()
    (desk.folder / "merge_manifest.json").write_text("{}")
    other = push(desk.api, desk.target.repo, {"merge_manifest.json": b"{}"})
    with pytest.raises(SpearError) as caught:
        confirmed(desk.hub, desk.target, other, published.manifest_sha256)
    assert caught.value.code is Code.VERIFICATION_FAILED
    assert caught.value.names["file"] == "merge_manifest.json"


def test_a_gitignore_in_the_target_cannot_keep_weights_out(desk):
    push(desk.api, desk.target.repo, {".gitignore": b"*.safetensors\n"})
    desk.publish()
    assert "model-00001-of-00002.safetensors" in desk.api.list_repo_files(desk.target.repo)


def test_a_trailer_that_is_not_the_last_line_is_no_proof(desk):
    prepare(desk.hub, desk.target)
    from huggingface_hub import CommitOperationAdd

    desk.api.create_commit(
        desk.target.repo, [CommitOperationAdd("a", b"1")], commit_message="quoting",
        commit_description=f"Merge-Job: {JOB} {'0' * 64}\n\nwas published long ago",
    )
    assert find_commit(desk.hub, desk.target, JOB) is None
