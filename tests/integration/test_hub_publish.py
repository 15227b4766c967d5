"""Publishing to a real Hub server over HTTP, with everything that can happen to the answer of a commit."""

import hashlib
import json
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from app.errors import Code, SpearError
from app.hub.client import Hub
from app.hub.commits import head_of
from app.hub.download import Stopped
from app.hub.publish import Published, find_commit, prepare, publish, reconcile
from app.hub.search import Search
from app.recipes import Target
from tests.fixtures.checkpoints import checkpoint, push

COMMIT = "/commit/main$"
JOB = "mrg_01"
MANIFEST = "merge_manifest.json"
CHANGES = {
    "shard": "model-00001-of-00002.safetensors", "card": "README.md", "more": "more.json", "less": "config.json",
    "manifest": MANIFEST,
}


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
        self.write_manifest(job)

    def write_manifest(self, job: str) -> None:
        """The manifest of what is in the folder; remembered as what the worker itself has written."""
        files = {path.name: path.read_bytes() for path in self.folder.iterdir() if path.name != MANIFEST}
        outputs = {
            name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()
        }
        content = json.dumps({"job": job, "outputs": outputs}).encode()
        (self.folder / MANIFEST).write_bytes(content)
        self.manifest_sha256 = hashlib.sha256(content).hexdigest()

    def publish(self, job: str = JOB, **changes) -> Published:
        options = {
            "title": f"Merge {job}", "record": self.recorded.append, "check_lease": self._check,
            "progress": lambda _: None, "stop": lambda: False, "deadline_seconds": 20, "patience_seconds": 1,
            "manifest_sha256": self.manifest_sha256, **changes,
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
    desk.write_manifest("mrg_02")
    second = desk.publish("mrg_02")
    assert first.commit != second.commit
    assert desk.commits("mrg_02") == [second.commit]


def test_a_repository_that_does_not_show_at_once_is_waited_for(desk):
    desk.server.fault("stale", path="/refs$", after=1)  # the second look gets the first one's 404
    desk.publish()
    assert len(desk.commits()) == 1


def test_a_job_that_published_before_is_found_and_not_repeated(desk):
    first = desk.publish()
    desk.server.clear_requests()
    assert desk.publish() == first
    assert desk.publish(parent=desk.recorded[0]) == first
    assert not [r for r in desk.server.requests() if r["method"] != "GET"]
    assert find_commit(desk.hub, desk.target, JOB) == first.commit
    assert find_commit(desk.hub, desk.target, JOB, since=first.commit) is None
    assert find_commit(desk.hub, desk.target, "mrg_0") is None
    assert reconcile(desk.hub, desk.target, JOB, parent=desk.recorded[0]) == first


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


@pytest.mark.parametrize("path", ["/preupload/", "/objects/batch", "/_lfs/", "/refs$", "/commits/main$", "/resolve/"])
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
    desk.server.fault("status", path="/commits/main$", status=503, times=None)
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


def test_files_of_any_name_may_lie_in_the_target(desk):
    push(desk.api, desk.target.repo, {"what is this?.md": b"1", "a:b*.bin": b"old weights"})
    desk.publish()
    files = desk.api.list_repo_files(desk.target.repo)
    assert "what is this?.md" in files
    assert "a:b*.bin" not in files


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ({"path": "/api/validate-yaml", "status": 400}, Code.HUB_REFUSED),
        ({"path": "/revision/", "status": 403}, Code.REPO_ACCESS_DENIED),
        ({"path": "/preupload/", "status": 403}, Code.REPO_ACCESS_DENIED),
        ({"path": "/api/validate-yaml", "status": 503}, Code.HUB_UNAVAILABLE),
    ],
)
def test_what_the_hub_could_refuse_is_asked_before_the_record(desk, fault, code):
    prepare(desk.hub, desk.target)
    desk.server.fault("status", times=None, **fault)
    error = refused(code, desk.publish)
    assert "unclear" not in error.names
    assert desk.recorded == []


def test_the_lease_is_checked_last_before_the_commit(desk):
    desk.publish(check_lease=desk.server.clear_requests)
    first = desk.server.requests()[0]
    assert (first["method"], first["path"]) == ("POST", f"/api/models/{desk.target.repo}/commit/main")


@pytest.mark.parametrize("change", CHANGES)
def test_files_that_another_process_has_rewritten_are_not_published(desk, change):
    """A worker that lost its lease may have written to the job's folder after this one verified it."""
    file = CHANGES[change]
    if change == "less":
        (desk.folder / file).unlink()
    else:
        (desk.folder / file).write_bytes(b"{}")
    error = refused(Code.VERIFICATION_FAILED, desk.publish)
    assert error.names["file"] == file
    assert desk.recorded == desk.commits() == []


def test_what_is_sent_is_what_was_checked(desk):
    published = desk.publish(record=lambda _: (desk.folder / "README.md").write_text("rewritten"))
    assert b"# restored" in desk.hub.read(desk.target.repo, published.commit, "README.md", size=100)


def test_a_stop_after_the_last_file_leaves_no_commit(desk):
    seen: list[int] = []
    total = sum(path.stat().st_size for path in desk.folder.iterdir())
    with pytest.raises(Stopped):
        desk.publish(progress=seen.append, stop=lambda: sum(seen) == total)
    assert sum(seen) == total
    assert desk.recorded == []


def test_another_head_is_somebody_elses_only_after_the_patience(desk):
    parent = prepare(desk.hub, desk.target)
    push(desk.api, desk.target.repo, {"theirs.txt": b"1"})
    desk.server.clear_requests()
    begin = time.monotonic()
    refused(Code.TARGET_MOVED, lambda: desk.publish(parent=parent, patience_seconds=1.5))
    assert time.monotonic() - begin >= 1.5
    assert len([r for r in desk.server.requests() if r["path"].endswith("/refs")]) >= 5


def test_a_commit_that_the_hub_shows_late_is_ours_all_the_same(desk):
    """The branch shows somebody else's head at first, as an older copy would."""
    parent = prepare(desk.hub, desk.target)
    ours = Target(repo=desk.target.repo, branch="ours")
    old = Target(repo=desk.target.repo, branch="exp")
    for branch in ("ours", "exp"):
        desk.api.create_branch(desk.target.repo, branch=branch, revision=parent)
    push_to(desk, "exp", {"theirs.txt": b"1"})
    desk.target = ours
    published = desk.publish()

    def catch_up() -> None:
        desk.api.delete_branch(old.repo, branch="exp")
        desk.api.create_branch(old.repo, branch="exp", revision=published.commit)

    timer = threading.Timer(0.6, catch_up)
    timer.start()
    search = Search(desk.hub, old, JOB, parent=parent, deadline=time.monotonic() + 20, patience_seconds=5)
    assert search.run() == (published.commit, published.manifest_sha256)
    timer.join()


def push_to(desk, branch: str, files: dict[str, bytes], message: str = "push") -> str:
    from huggingface_hub import CommitOperationAdd

    operations = [CommitOperationAdd(path, data) for path, data in files.items()]
    title, _, description = message.partition("\n")
    return desk.api.create_commit(
        desk.target.repo, operations, commit_message=title, commit_description=description, revision=branch
    ).oid


def reconciled(desk, parent: str) -> Published | None:
    return reconcile(desk.hub, desk.target, JOB, parent=parent, patience_seconds=0.5)


def test_what_became_of_an_earlier_attempt(desk):
    parent = prepare(desk.hub, desk.target)
    assert reconciled(desk, parent) is None
    push(desk.api, desk.target.repo, {"theirs.txt": b"1"})
    refused(Code.TARGET_MOVED, lambda: reconciled(desk, parent))
    desk.api.delete_repo(desk.target.repo)
    assert refused(Code.TARGET_MOVED, lambda: reconciled(desk, parent)).names["head"] == "gone"
    assert head_of(desk.hub, desk.target) is None


@pytest.mark.parametrize("files", [{MANIFEST: b"{}"}, {"config.json": b"{}"}], ids=["other", "missing"])
def test_a_commit_with_another_manifest_is_not_passed_off_as_ours(desk, files):
    parent = prepare(desk.hub, desk.target)
    oid = push_to(desk, "main", files, f"Merge\nMerge-Job: {JOB} {'0' * 64}")
    error = refused(Code.VERIFICATION_FAILED, lambda: reconciled(desk, parent))
    assert (error.names["file"], error.names["commit"]) == (MANIFEST, oid)


def test_a_head_that_cannot_be_read_is_not_taken_for_anything(desk):
    parent = prepare(desk.hub, desk.target)
    desk.server.fault("status", path="/refs$", status=403, times=None)
    assert refused(Code.HUB_UNAVAILABLE, lambda: reconciled(desk, parent)).names["unclear"] is True


@pytest.mark.parametrize("path", ["/refs$", "/commits/", "/(refs$|commits/)"], ids=["refs", "commits", "both"])
def test_a_hub_whose_branches_lag_behind_gets_one_commit(desk, path):
    """For a while the Hub shows the branch as it was before the commit: sent again, it meets the parent's guard."""
    prepare(desk.hub, desk.target)
    desk.server.fault("stale", path=f"{desk.target.repo}{path}", method="GET", times=9)
    published = desk.publish()
    assert desk.commits() == [published.commit]
    assert desk.server.faults()[0]["hits"] >= 2  # the first question has no older answer


def test_a_branch_that_lags_behind_somebody_elses_commit_does_not_hide_it(desk):
    """The head that was read is older than the branch: the guard refuses, and the job is told that the target moved."""
    parent = prepare(desk.hub, desk.target)
    desk.server.fault("stale", path=f"{desk.target.repo}/refs$", method="GET", times=3)
    desk.hub.branches(desk.target.repo)
    push(desk.api, desk.target.repo, {"theirs.txt": b"1"})
    error = refused(Code.TARGET_MOVED, desk.publish)
    assert error.names["parent"] == parent
    assert desk.commits() == []


def test_an_upload_that_is_cut_off_in_the_middle_is_begun_again(desk):
    desk.server.fault("drop", path="/_lfs/upload", method="PUT", times=2)
    published = desk.publish()
    assert desk.commits() == [published.commit]
    assert desk.server.faults()[0]["hits"] == 2


@pytest.mark.parametrize("branch", ["main", "exp"])
def test_a_target_that_was_hidden_for_a_moment_is_not_told_as_created(desk, branch):
    """An older copy of the Hub does not show what is there: it is somebody else's, and stays as it is."""
    made: list[str] = []
    if branch != "main":
        prepare(desk.hub, desk.target)
    desk.server.fault("stale", path="/refs$", method="GET", times=2)
    with suppress(SpearError):
        desk.hub.branches(desk.target.repo)  # what the first look of `prepare` sees
    oid = push(desk.api, desk.target.repo, {"theirs.txt": b"1"})
    if branch != "main":
        desk.api.create_branch(desk.target.repo, branch=branch, revision=oid)
    desk.target = Target(repo=desk.target.repo, branch=branch)
    assert prepare(desk.hub, desk.target, made=lambda what, _: made.append(what)) == oid
    assert made == []


@pytest.mark.parametrize(("branch", "what"), [("main", "repository"), ("exp", "branch")])
def test_a_target_that_is_created_is_told_once(desk, branch, what):
    if branch != "main":
        prepare(desk.hub, desk.target)
    target = Target(repo=desk.target.repo, branch=branch)
    made: list[tuple[str, str]] = []
    head = prepare(desk.hub, target, made=lambda *found: made.append(found))
    prepare(desk.hub, target, made=lambda *found: made.append(found))
    assert made == [(what, head)]


CONFLICT = "Cannot create repo: another conflicting operation is in progress"


def test_repositories_that_are_created_side_by_side_wait_for_each_other(desk):
    """The Hub makes one repository of an account at a time."""
    desk.server.fault("status", path="/repos/create$", status=409, words=CONFLICT, times=2)
    made: list[str] = []
    prepare(desk.hub, desk.target, made=lambda what, _: made.append(what))
    assert made == ["repository"]


def test_a_creation_whose_turn_does_not_come_may_be_tried_again(desk):
    desk.server.fault("status", path="/repos/create$", status=409, words=CONFLICT, times=None)
    refused(Code.HUB_UNAVAILABLE, lambda: prepare(desk.hub, desk.target))
