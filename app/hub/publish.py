"""Publishing a folder to the Hub in one guarded commit that bears its job, whatever happens to the answers.

The guard is the parent: the Hub takes a commit only on top of the head that was read before. The proof is the
trailer: the last line of the commit's message names the job and the manifest's digest. A reply alone is neither: it
can be lost after the commit was made, and the client answers with the old head where nothing had changed.
"""

import hashlib
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from app.errors import Code, SpearError
from app.hub.blobs import digest_file
from app.hub.client import CommitOperationAdd, CommitOperationDelete, Hub
from app.hub.download import Stopped
from app.hub.pins import pin
from app.recipes import Target

MANIFEST = "merge_manifest.json"
TRAILER = "Merge-Job"
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".gguf", ".onnx", ".msgpack", ".index.json")
"""Weight and index files, by their endings; those that a result does not have are deleted by its commit."""

SMALL_BYTES = 5_000_000
"""Files up to this size are handed to the Hub together, larger ones one by one."""

HISTORY = 1_000
"""Commits looked at for a trailer, from the newest on."""
UNCHANGED_LOOKS = 2
FOREIGN_LOOKS = 4
"""Looks at the branch before it counts as unchanged, or as somebody else's: a Hub may answer from an older copy."""
_MAX_MANIFEST = 256_000_000
_UNCLEAR_STATUS = frozenset({408, 409, 412})


@dataclass(frozen=True)
class Published:
    """The commit on the target that bears the job. `manifest_sha256` is that of the manifest in it."""

    repo: str
    commit: str
    url: str
    manifest_sha256: str


def prepare(hub: Hub, target: Target) -> str:
    """The oid of the target branch's head; repository and branch are created where they are missing."""
    try:
        branches = hub.branches(target.repo)
    except SpearError as error:
        if error.code is not Code.REPO_NOT_FOUND:
            raise
        hub.create_repo(target.repo, private=target.private)
        branches = _branches(hub, target, wanted="main")
    if target.branch not in branches:
        start = branches.get("main") or next(iter(branches.values()), None)
        if start is None:
            raise SpearError(Code.HUB_REFUSED, f"{target.repo} has no commit to build on", repo=target.repo)
        hub.create_branch(target.repo, target.branch, start=start)
        branches = _branches(hub, target, wanted=target.branch)
    return branches[target.branch]


def find_commit(hub: Hub, target: Target, job_id: str, *, since: str | None = None) -> str | None:
    """The oid of the commit on the target's branch that bears the job, if there is one.

    Commits are looked at from the newest on, down to `since`, which is not looked at.
    """
    found = _find(hub, target, job_id, since=since)
    return found[0] if found else None


def reconcile(hub: Hub, target: Target, job_id: str, *, since: str | None = None) -> Published | None:
    """The job's commit with its manifest checked, if there is one: for a worker that takes over."""
    found = _find(hub, target, job_id, since=since)
    return _confirmed(hub, target, *found) if found else None


def upload(
    hub: Hub, target: Target, folder: Path, *, progress: Callable[[int], None], stop: Callable[[], bool]
) -> list[CommitOperationAdd]:
    """Stores every file of the folder at the Hub, without a commit; `progress` gets the bytes stored since last time.

    Can be repeated at will: content that is there already is not sent. Raises `Stopped` between two files.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    additions = [CommitOperationAdd(path.relative_to(folder).as_posix(), path) for path in paths]
    small = [addition for addition in additions if addition.upload_info.size <= SMALL_BYTES]
    for batch in (small, *([addition] for addition in additions if addition not in small)):
        if stop():
            raise Stopped
        hub.upload(target.repo, target.branch, batch)
        progress(sum(addition.upload_info.size for addition in batch))
    return additions


def commit(
    hub: Hub, target: Target, additions: list[CommitOperationAdd], *, parent: str, title: str, trailer: str
) -> str:
    """ONE commit on top of `parent`, never repeated here: the uploaded files in, weights and indexes of before out."""
    names = {addition.path_in_repo for addition in additions}
    stale = [
        CommitOperationDelete(file.path, is_folder=False)
        for file in pin(hub, target.repo, parent).files
        if file.path.endswith(WEIGHTS) and file.path not in names
    ]
    return hub.commit(
        target.repo, target.branch, [*additions, *stale], parent=parent, title=title, description=trailer
    )


def publish(
    hub: Hub,
    target: Target,
    folder: Path,
    *,
    job_id: str,
    title: str,
    parent: str | None = None,
    record: Callable[[str], None],
    check_lease: Callable[[], None],
    progress: Callable[[int], None],
    stop: Callable[[], bool],
    deadline_seconds: float,
) -> Published:
    """Publishes the folder, whose `merge_manifest.json` must name the job, at most once.

    `parent` is the head that an earlier attempt recorded before it committed, if one did. `record` is called with the
    parent, after all content is stored and before the commit: it writes the fenced row, and from there on `stop` is
    not asked any more. `check_lease` is called before each commit and raises if the lease is lost. Both count towards
    `deadline_seconds`, which begins with `record`.

    Raises `TARGET_MOVED` where somebody else has committed; `VERIFICATION_FAILED` where the commit holds something
    else; the Hub's refusals; and `HUB_UNAVAILABLE`, with `unclear=True` in its names where a commit was sent and
    nobody can tell yet whether it landed.
    """
    found = _find(hub, target, job_id, since=parent)
    if found:
        return _confirmed(hub, target, *found)
    head = prepare(hub, target)
    if parent is not None and head != parent:
        raise _moved(target, head=head, parent=parent)
    additions = upload(hub, target, folder, progress=progress, stop=stop)
    record(head)
    attempt = _Attempt(
        hub, target, additions, job_id=job_id, title=title, parent=head,
        manifest_sha256=hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest(),
        deadline=time.monotonic() + deadline_seconds,
    )  # fmt: skip
    return attempt.run(check_lease)


class _Attempt:
    """From the recorded parent to a commit that is known to be there, or known not to be."""

    def __init__(
        self, hub: Hub, target: Target, additions: list[CommitOperationAdd], *,
        job_id: str, title: str, parent: str, manifest_sha256: str, deadline: float,
    ) -> None:  # fmt: skip
        self.hub, self.target, self.additions = hub, target, additions
        self.job_id, self.title, self.parent = job_id, title, parent
        self.manifest_sha256, self.deadline = manifest_sha256, deadline
        self.in_doubt = False

    def run(self, check_lease: Callable[[], None]) -> Published:
        while True:
            check_lease()
            sent = self._send()
            found = self._look(sure=sent)
            if found:
                return self._verified(*found)

    def _send(self) -> bool:
        """Sends the commit; whether the Hub said that it is made. Raises what the Hub surely refused."""
        trailer = f"{TRAILER}: {self.job_id} {self.manifest_sha256}"
        try:
            commit(self.hub, self.target, self.additions, parent=self.parent, title=self.title, trailer=trailer)
        except SpearError as error:
            if error.code is Code.HUB_UNAVAILABLE or error.names.get("status") in _UNCLEAR_STATUS:
                self.in_doubt = True
                return False
            if self.in_doubt:  # this one is refused, but one sent before may still land
                raise self._unclear(error.message) from None
            raise
        return True

    def _look(self, *, sure: bool) -> tuple[str, str] | None:
        """The commit with our trailer; None if the branch is unchanged, so that the same commit may be sent again.

        If the Hub was `sure` that the commit is made, it is waited for.
        """
        unchanged = foreign = 0
        for wait in self._waits():
            time.sleep(wait)
            try:
                found = _find(self.hub, self.target, self.job_id, since=self.parent)
                head = self.hub.branches(self.target.repo).get(self.target.branch)
            except SpearError as error:
                if error.code is not Code.HUB_UNAVAILABLE:
                    raise self._unclear(error.message) from None
                continue
            if found:
                return found
            unchanged, foreign = unchanged + (head == self.parent), foreign + (head != self.parent)
            if foreign >= FOREIGN_LOOKS:
                raise _moved(self.target, head=head or "gone", parent=self.parent)
            if unchanged >= UNCHANGED_LOOKS and not sure:
                return None
        raise self._unclear("the Hub did not say before the deadline whether the commit was made")

    def _verified(self, oid: str, manifest_sha256: str) -> Published:
        """The commit, after a look at what is really in it."""
        for wait in self._waits():
            time.sleep(wait)
            try:
                published = _confirmed(self.hub, self.target, oid, manifest_sha256)
                if manifest_sha256 == self.manifest_sha256:
                    self._compare(oid)
            except SpearError as error:
                if error.code is not Code.HUB_UNAVAILABLE:
                    raise
                continue
            return published
        raise self._unclear(f"commit {oid} was made, but could not be read before the deadline", commit=oid)

    def _compare(self, oid: str) -> None:
        """Every file there, with the bytes that we have here, and no other weights beside them."""
        there = {file.path: file for file in pin(self.hub, self.target.repo, oid).files}
        names = {addition.path_in_repo for addition in self.additions}
        for addition in self.additions:
            file = there.get(addition.path_in_repo)
            if file is None or file.digest != _digest(addition, like=file.digest):
                raise _unlike(self.target, addition.path_in_repo, oid=oid)
        for path in there:
            if path.endswith(WEIGHTS) and path not in names:
                raise _unlike(self.target, path, oid=oid)

    def _waits(self) -> Iterator[float]:
        """Growing waits until the deadline; at least one, so that what was sent is looked for once in any case."""
        wait = 0.0
        while True:
            yield wait
            wait = min(8.0, max(0.1, wait * 2))
            if time.monotonic() + wait > self.deadline:
                return

    def _unclear(self, words: str, **names: str) -> SpearError:
        return SpearError(
            Code.HUB_UNAVAILABLE, f"publishing to {self.target.repo}: {words}",
            repo=self.target.repo, parent=self.parent, unclear=True, **names,
        )  # fmt: skip


def _find(hub: Hub, target: Target, job_id: str, *, since: str | None) -> tuple[str, str] | None:
    """Oid and manifest digest of the commit whose last line is the job's trailer."""
    pattern = re.compile(rf"{TRAILER}: {re.escape(job_id)} ([0-9a-f]{{64}})")
    try:
        for oid, message in islice(hub.commits(target.repo, target.branch), HISTORY):
            if oid == since:
                break
            last = message.rstrip().rpartition("\n")[2].strip()
            if match := pattern.fullmatch(last):
                return oid, match[1]
    except SpearError as error:
        if error.code not in {Code.REPO_NOT_FOUND, Code.REVISION_NOT_FOUND}:
            raise
    return None


def _confirmed(hub: Hub, target: Target, oid: str, manifest_sha256: str) -> Published:
    """The commit, if its manifest is the one that its trailer names."""
    raw = hub.read(target.repo, oid, MANIFEST, size=_MAX_MANIFEST)
    if hashlib.sha256(raw).hexdigest() != manifest_sha256:
        raise _unlike(target, MANIFEST, oid=oid)
    return Published(target.repo, oid, f"{hub.endpoint}/{target.repo}/tree/{oid}", manifest_sha256)


def _branches(hub: Hub, target: Target, *, wanted: str) -> dict[str, str]:
    """The branches, once `wanted` is seen among them: what was just created may take a moment to show."""
    for wait in (0.0, 0.2, 0.5, 1.0, 2.0, 4.0):
        time.sleep(wait)
        branches = hub.branches(target.repo)
        if wanted in branches:
            return branches
    raise SpearError(
        Code.HUB_UNAVAILABLE, f"the Hub does not show branch {wanted} of {target.repo}", repo=target.repo
    )


def _digest(addition: CommitOperationAdd, *, like: str) -> str:
    if like.startswith("sha256:"):
        return f"sha256:{addition.upload_info.sha256.hex()}"
    return digest_file(Path(str(addition.path_or_fileobj)), like)


def _moved(target: Target, *, head: str, parent: str) -> SpearError:
    return SpearError(
        Code.TARGET_MOVED, f"{target.repo}@{target.branch} is at {head}, not at {parent} as when publishing began",
        repo=target.repo, branch=target.branch, head=head, parent=parent,
    )  # fmt: skip


def _unlike(target: Target, file: str, *, oid: str) -> SpearError:
    return SpearError(
        Code.VERIFICATION_FAILED, f"{file} in commit {oid} of {target.repo} is not what was published",
        repo=target.repo, file=file, commit=oid,
    )  # fmt: skip
