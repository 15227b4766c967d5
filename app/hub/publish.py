"""Publishing a folder to the Hub in one guarded commit that bears its job, whatever happens to the answers.

The guard is the parent: the Hub takes a commit only on top of the head that was read before. The proof is the
trailer: the last line of the commit's message names the job and the manifest's digest. A reply alone is neither: it
can be lost after the commit was made, or be a refusal of what was taken.
"""

import time
from collections.abc import Callable
from pathlib import Path

from app.errors import Code, SpearError
from app.hub.client import Hub
from app.hub.commits import (
    MANIFEST,
    WEIGHTS,
    Published,
    confirmed,
    files_at,
    find,
    find_commit,
    prepare,
    unlike,
    upload,
)
from app.hub.download import Stopped
from app.hub.parcel import Parcel, pack
from app.hub.search import FOREIGN_SECONDS, Search
from app.recipes import Target

__all__ = ["Published", "find_commit", "prepare", "publish", "reconcile", "upload"]

_UNCLEAR_STATUS = frozenset({408, 409, 412})


def reconcile(
    hub: Hub, target: Target, job_id: str, *,
    parent: str | None, stop: Callable[[], bool] = lambda: False, patience_seconds: float = FOREIGN_SECONDS,
) -> Published | None:  # fmt: skip
    """The commit of an attempt that recorded `parent`, its manifest checked; None if the branch is unchanged.

    Raises as `publish` does: `TARGET_MOVED` where the parent is gone, so that the commit can never land;
    `VERIFICATION_FAILED`, with `commit` in its names, where the commit holds another manifest; `Stopped`.
    """
    search = Search(
        hub, target, job_id, parent=parent, stop=stop, patience_seconds=patience_seconds,
        deadline=time.monotonic() + 2 * patience_seconds + 5,
    )  # fmt: skip
    found = search.run()
    return _taken_over(hub, target, *found) if found else None


def publish(
    hub: Hub,
    target: Target,
    folder: Path,
    *,
    job_id: str,
    title: str,
    manifest_sha256: str,
    parent: str | None = None,
    record: Callable[[str], None],
    check_lease: Callable[[], None],
    progress: Callable[[int], None],
    stop: Callable[[], bool],
    deadline_seconds: float,
    patience_seconds: float = FOREIGN_SECONDS,
    reach: Callable[[str], None] = lambda _: None,
    made: Callable[[str, str], None] = lambda _what, _head: None,
) -> Published:
    """Publishes the folder, whose `merge_manifest.json` has this digest and names the job, at most once.

    `parent` is the head that an earlier attempt recorded before it committed, if one did. `record` is called with the
    parent, after all content is stored and everything is asked that the Hub could refuse, and before the commit: it
    writes the fenced row, and from there on `stop` is not asked any more. `check_lease` is called immediately before
    each commit and raises if the lease is lost. Both count towards `deadline_seconds`, which begins with `record`.
    `reach` is told after each step that can be seen from outside, by the names in `worker.crash`; `made` is told if
    the repository or the branch had to be created.

    Raises `TARGET_MOVED` where the branch shows somebody else's commit for `patience_seconds`; `VERIFICATION_FAILED`
    where a file is not what the manifest lists, or (with `commit` in its names) where the commit holds something else;
    the Hub's refusals; and `HUB_UNAVAILABLE`, with `unclear=True` in its names where a commit may have been sent and
    nobody can tell yet whether it landed.
    """
    head = prepare(hub, target, made=made)
    reach("prepared")
    found = find(hub, target, job_id, since=parent, at=head)
    if found is None and parent is not None and head != parent:
        search = Search(
            hub, target, job_id, parent=parent, stop=stop, patience_seconds=patience_seconds,
            deadline=time.monotonic() + deadline_seconds + patience_seconds,
        )  # fmt: skip
        found, head = search.run(), parent
    if found:
        return _taken_over(hub, target, *found)

    def stored(count: int) -> None:
        progress(count)
        reach("uploaded")

    additions = upload(hub, target, folder, progress=stored, stop=stop)
    reach("stored")
    parcel = pack(hub, target, additions, parent=head, job_id=job_id, title=title, manifest_sha256=manifest_sha256)
    reach("packed")
    if stop():
        raise Stopped
    deadline = time.monotonic() + deadline_seconds
    record(head)
    search = Search(hub, target, job_id, parent=head, patience_seconds=patience_seconds, deadline=deadline)
    return _Attempt(hub, target, parcel, search, reach).run(check_lease)


class _Attempt:
    """From the recorded parent to a commit that is known to be there, or known not to be."""

    def __init__(
        self, hub: Hub, target: Target, parcel: Parcel, search: Search, reach: Callable[[str], None]
    ) -> None:
        self.hub, self.target, self.parcel, self.search, self.reach = hub, target, parcel, search, reach
        self.in_doubt = False

    def run(self, check_lease: Callable[[], None]) -> Published:
        while True:
            if time.monotonic() > self.search.deadline:
                raise self.search.unclear("no time was left to send the commit")
            check_lease()
            self.reach("checked")
            sent = self._send()
            self.reach("answered")
            found = self.search.run(sure=sent)
            if found:
                self.reach("found")
                return self._verified(*found)

    def _send(self) -> bool:
        """Sends the commit; whether the Hub said that it is made. Raises what the Hub surely refused."""
        try:
            self.hub.commit(
                self.target.repo, self.target.branch, self.parcel.body, sent=lambda: self.reach("sent")
            )
        except SpearError as error:
            if error.code is Code.HUB_UNAVAILABLE or error.names.get("status") in _UNCLEAR_STATUS:
                self.in_doubt = True
                return False
            if self.in_doubt:  # this one is refused, but one sent before may still land
                raise self.search.unclear(error.message) from None
            raise
        return True

    def _verified(self, oid: str, manifest_sha256: str) -> Published:
        """The commit, after a look at what is really in it."""
        for wait in self.search.waits():
            time.sleep(wait)
            try:
                published = confirmed(self.hub, self.target, oid, manifest_sha256)
                if manifest_sha256 == self.parcel.manifest_sha256:
                    self._compare(oid)
            except SpearError as error:
                if error.code is Code.VERIFICATION_FAILED:
                    raise
                continue  # it is made: whatever else the Hub says, it may not show it yet
            return published
        raise self.search.unclear(f"commit {oid} was made, but could not be read before the deadline", commit=oid)

    def _compare(self, oid: str) -> None:
        """Every file there, with the bytes that were sent, and no other weights beside them."""
        there = {file.path: file.digest for file in files_at(self.hub, self.target, oid)}
        for path, digests in self.parcel.digests.items():
            if there.get(path) not in digests:
                raise unlike(self.target, path, oid=oid)
        for path in there:
            if path.endswith(WEIGHTS) and path not in self.parcel.digests:
                raise unlike(self.target, path, oid=oid)


def _taken_over(hub: Hub, target: Target, oid: str, manifest_sha256: str) -> Published:
    """An earlier attempt's commit, if it holds the manifest that its trailer names."""
    try:
        return confirmed(hub, target, oid, manifest_sha256)
    except SpearError as error:
        if error.code is Code.HUB_REFUSED:  # the Hub has the commit, and no manifest in it
            raise unlike(target, MANIFEST, oid=oid) from None
        raise
