"""Looking for a job's commit on its branch until it is known whether it is there."""

import time
from collections.abc import Callable, Iterator

from app.errors import Code, SpearError
from app.hub.client import Hub
from app.hub.commits import find, head_of
from app.hub.download import Stopped
from app.recipes import Target

UNCHANGED_LOOKS = 2
"""Looks at the branch before it counts as unchanged; the same commit, sent again, is guarded by its parent."""

FOREIGN_SECONDS = 25.0
"""How long the branch has to show another head, and never our commit, before it counts as somebody else's.

A Hub may answer from older copies, of the commit list in particular, and nothing undoes this verdict.
"""


class Search:
    """Looks at one branch, where a commit that bears the job may come on top of `parent`."""

    def __init__(
        self, hub: Hub, target: Target, job_id: str, *, parent: str | None, deadline: float,
        patience_seconds: float = FOREIGN_SECONDS, stop: Callable[[], bool] = lambda: False,
    ) -> None:  # fmt: skip
        """`deadline` is on the monotonic clock."""
        self.hub, self.target, self.job_id, self.parent = hub, target, job_id, parent
        self.deadline, self.patience_seconds, self.stop = deadline, patience_seconds, stop

    def run(self, *, sure: bool = False) -> tuple[str, str] | None:
        """Oid and manifest digest of the job's commit; None if the branch is unchanged.

        If the Hub was `sure` that the commit is made, it is waited for. Raises `TARGET_MOVED`; `Stopped`; and
        `HUB_UNAVAILABLE` with `unclear=True` where the Hub does not say before the deadline.
        """
        unchanged, foreign_since = 0, None
        for wait in self.waits():
            time.sleep(wait)
            if self.stop():
                raise Stopped
            look = self._look()
            if look is None:
                continue
            found, head = look
            if found:
                return found
            if head == self.parent or self.parent is None:
                unchanged, foreign_since = unchanged + 1, None
                if unchanged >= UNCHANGED_LOOKS and not sure:
                    return None
                continue
            foreign_since = foreign_since or time.monotonic()
            if time.monotonic() - foreign_since >= self.patience_seconds:
                raise self._moved(head or "gone")
        raise self.unclear("the Hub did not say before the deadline whether the commit was made")

    def waits(self) -> Iterator[float]:
        """Growing waits until the deadline; at least one, so that what was sent is looked for once in any case."""
        wait = 0.0
        while True:
            yield wait
            wait = min(8.0, max(0.1, wait * 2))
            if time.monotonic() + wait > self.deadline:
                return

    def unclear(self, words: str, **names: str) -> SpearError:
        return SpearError(
            Code.HUB_UNAVAILABLE, f"publishing to {self.target.repo}: {words}",
            repo=self.target.repo, parent=self.parent, unclear=True, **names,
        )  # fmt: skip

    def _look(self) -> tuple[tuple[str, str] | None, str | None] | None:
        """The job's commit, if it shows, and the branch's head; None if the Hub does not answer."""
        try:
            found = find(self.hub, self.target, self.job_id, since=self.parent)
            head = head_of(self.hub, self.target)
            if found is None and head not in {None, self.parent}:
                found = find(self.hub, self.target, self.job_id, since=self.parent, at=head)
        except SpearError as error:
            if error.code is not Code.HUB_UNAVAILABLE:
                raise self.unclear(error.message) from None
            return None
        return found, head

    def _moved(self, head: str) -> SpearError:
        target = self.target
        return SpearError(
            Code.TARGET_MOVED,
            f"{target.repo}@{target.branch} is at {head}, not at {self.parent} as when publishing began",
            repo=target.repo, branch=target.branch, head=head, parent=self.parent,
        )  # fmt: skip
