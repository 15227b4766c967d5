"""Publishing a folder to the Hub in one guarded commit that bears its job, whatever happens to the answers.

The guard is the parent: the Hub takes a commit only on top of the head that was read before. The proof is the
trailer: the last line of the commit's message names the job and the manifest's digest. A reply alone is neither: it
can be lost after the commit was made, and the client answers with the old head where nothing had changed.
"""

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from app.errors import Code, SpearError
from app.hub.blobs import digest_file
from app.hub.client import CommitOperationAdd, Hub
from app.hub.commits import (
    MANIFEST,
    TRAILER,
    WEIGHTS,
    Published,
    commit,
    confirmed,
    files_at,
    find,
    find_commit,
    prepare,
    unlike,
    upload,
)
from app.recipes import Target

__all__ = ["Published", "commit", "find_commit", "prepare", "publish", "reconcile", "upload"]

UNCHANGED_LOOKS = 2
FOREIGN_LOOKS = 4
"""Looks at the branch before it counts as unchanged, or as somebody else's: a Hub may answer from an older copy."""
_UNCLEAR_STATUS = frozenset({408, 409, 412})


def reconcile(hub: Hub, target: Target, job_id: str, *, since: str | None = None) -> Published | None:
    """The job's commit with its manifest checked, if there is one: for a worker that takes over."""
    found = find(hub, target, job_id, since=since)
    return confirmed(hub, target, *found) if found else None


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
    found = find(hub, target, job_id, since=parent)
    if found:
        return confirmed(hub, target, *found)
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
                found = find(self.hub, self.target, self.job_id, since=self.parent)
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
                published = confirmed(self.hub, self.target, oid, manifest_sha256)
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
        there = {file.path: file for file in files_at(self.hub, self.target, oid)}
        names = {addition.path_in_repo for addition in self.additions}
        for addition in self.additions:
            file = there.get(addition.path_in_repo)
            if file is None or file.digest != _digest(addition, like=file.digest):
                raise unlike(self.target, addition.path_in_repo, oid=oid)
        for path in there:
            if path.endswith(WEIGHTS) and path not in names:
                raise unlike(self.target, path, oid=oid)

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


def _digest(addition: CommitOperationAdd, *, like: str) -> str:
    if like.startswith("sha256:"):
        return f"sha256:{addition.upload_info.sha256.hex()}"
    return digest_file(Path(str(addition.path_or_fileobj)), like)


def _moved(target: Target, *, head: str, parent: str) -> SpearError:
    return SpearError(
        Code.TARGET_MOVED, f"{target.repo}@{target.branch} is at {head}, not at {parent} as when publishing began",
        repo=target.repo, branch=target.branch, head=head, parent=parent,
    )  # fmt: skip
