"""Named points at which a worker dies on demand, so that tests can show what recovery is worth.

`SPEAR_CRASH_AT=publishing.recorded@1:org/a,scoring.begun@2:org/b` kills the whole worker, as `kill -9` would, when the
first attempt at the job with target org/a has recorded its publish, and when the second at org/b has begun to score.
`merging.step#3@1:org/a` is the third time that the point is reached in that attempt. A target of `*` means any job.
"""

import os
import signal
from collections import Counter

STAGES = ("resolving", "downloading", "scoring", "selecting", "merging", "verifying", "publishing")
"""of a merge that nothing is asked of. What a recipe adds (`preparing`, `searching`, `controls`, `evaluating`, and the
stages of studies) has the same points, `searching.step` and so on; they are not among `POINTS`, because the jobs of the
chaos suite, which dies at each of those, measure nothing."""

POINTS: tuple[str, ...] = (
    "claim.written",  # the row is ours, nothing is done yet
    "workspace.held",  # the job's directory is made and locked
    "resolving.begun", "resolving.checked", "resolving.done",
    "downloading.begun",
    "downloading.file",  # each input whose files are all in place
    "downloading.done",
    "spectra.written",  # what the cache knew lies beside the task
    "task.written", "child.started",
    "scoring.begun",
    "scoring.step",  # each scored tensor
    "scoring.spectrum",  # each spectrum stored in Postgres
    "scoring.done", "selecting.begun", "selecting.done", "merging.begun",
    "merging.step",  # each tensor (or shard) that the journal holds
    "merging.done", "verifying.begun",
    "verifying.step",  # each verified file
    "verifying.done",
    "child.done",  # the report, the card and the manifest are written
    "documents.stored",  # scores, report and manifest are in Postgres
    "publishing.begun",
    "publishing.prepared",  # repository and branch exist
    "publishing.uploaded",  # each batch of LFS uploads
    "publishing.stored",  # everything is at the Hub, without a commit
    "publishing.packed", "publishing.recorded",
    "publishing.checked",  # the lease was looked at, the commit comes next
    "publishing.sent",  # the last byte of the commit is out, no reply was read
    "publishing.answered", "publishing.found", "publishing.committed", "publishing.done",
    "settled", "workspace.removed",
    "requeued",  # after a fault that may pass, or a drain
    "cancel.seen",
    "publishing.reconciled",  # an earlier attempt's commit was found
    "publishing.forgotten",  # an earlier attempt's commit is not there, and cannot come any more
)  # fmt: skip
"""All points, in the order of a merge; the last five lie on the way of a job that does not simply succeed."""


class CrashPoints:
    """The points of one attempt; none, unless the setting names some."""

    def __init__(self, setting: str, *, attempt: int, target: str | None) -> None:
        wanted = (point.partition("@") for point in setting.split(",") if point)
        here = {f"{attempt}:{target}", f"{attempt}:*"}
        self._names = frozenset(name for name, _, when in wanted if when in here)
        self._seen: Counter[str] = Counter()

    def reach(self, name: str) -> None:
        """Die here if this point is named."""
        self._seen[name] += 1
        if name in self._names or f"{name}#{self._seen[name]}" in self._names:
            os.kill(os.getppid(), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
