"""Publishing under the lease: what `app.hub.publish` does, tied to the job's row.

Until the row records the publish, a cancellation stops everything; from there on only the Hub's head decides.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog

from app.errors import Code, SpearError
from app.hub.client import Hub
from app.hub.download import Stopped
from app.hub.publish import Published, publish, reconcile
from app.jobs.leases import Lease, Leases
from app.jobs.tables import Job
from app.recipes import Target, parse_recipe
from app.settings import Settings
from worker.crash import CrashPoints
from worker.heartbeat import Heartbeat
from worker.progress import Progress

log = structlog.get_logger()

_DYING_STATUS = 75
_PATIENCE_SECONDS = 2.0


class Publication:
    """The last stage of one attempt."""

    def __init__(
        self, job: Job, *, lease: Lease, leases: Leases, settings: Settings, progress: Progress, heartbeat: Heartbeat,
        crash: CrashPoints, abandon: Callable[[], None],
    ) -> None:
        """`abandon` settles the job when it must stop while the Hub's client is deep in an upload."""
        self._job = job
        self._lease = lease
        self._leases = leases
        self._settings = settings
        self._progress = progress
        self._heartbeat = heartbeat
        self._crash = crash
        self._abandon = abandon
        self._parent: str | None = job.publishing["parent"] if job.publishing else None
        self.uncertain = job.publishing is not None
        """a commit may be on the Hub, or on its way: nobody may end the job as failed"""

    @property
    def _target(self) -> Target:
        return parse_recipe(self._job.recipe).target  # asked for only where something is published

    def reconcile(self, hub: Hub) -> dict[str, Any] | None:
        """The result, if an earlier attempt's commit is on the Hub."""
        if self._job.publishing is None:
            return None
        self._progress.begin("publishing")
        published = reconcile(hub, self._target, self._job.id, since=self._parent)
        if published:
            return self._result(published, summary=self._job.publishing["summary"])
        # read after the earlier publisher's deadline, by the database's clock: that publisher is dead
        deadline = self._job.publish_deadline
        self.uncertain = deadline is None or self._job.updated_at < deadline
        return None

    def publish(self, hub: Hub, folder: Path, *, summary: dict[str, Any]) -> dict[str, Any]:
        """The result, once the commit is known to be on the target."""
        total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        self._progress.begin("publishing", total=total, unit="bytes")
        try:
            with self._stopped_by_force(), self._dying_at_deadline() as start_clock:
                published = self._send(hub, folder, summary=summary, total=total, start_clock=start_clock)
        except Stopped:
            self._heartbeat.check()
            raise AssertionError from None  # the upload stops for nothing else
        except SpearError as error:
            if error.code is Code.TARGET_MOVED:
                self.uncertain = False  # the parent is gone, so our commit can never land
            raise
        self._crash.reach("publishing.committed")
        return self._result(published, summary=summary)

    def _send(
        self, hub: Hub, folder: Path, *, summary: dict[str, Any], total: int, start_clock: Callable[[], None]
    ) -> Published:
        stored = 0

        def store(count: int) -> None:
            nonlocal stored
            stored += count
            self._heartbeat.progressed()
            self._progress.step(done=min(stored, total))

        def record(parent: str) -> None:
            self._leases.record_publishing(
                self._lease, parent=parent, manifest_sha256=summary["manifest_sha256"], summary=summary,
                seconds=self._settings.publish_seconds,
            )
            self.uncertain = True
            self._crash.reach("publishing.recorded")
            start_clock()

        return publish(
            hub, self._target, folder, job_id=self._job.id, title=self._title(), parent=self._parent, record=record,
            check_lease=lambda: self._leases.check(self._lease), progress=store, stop=self._heartbeat.stopping,
            deadline_seconds=0.8 * self._settings.publish_seconds,
        )

    def _title(self) -> str:
        recipe = self._job.recipe
        return f"Merge {recipe['base']['repo']} and {recipe['experts'][0]['repo']} by {recipe['method']['name']}"

    def _result(self, published: Published, *, summary: dict[str, Any]) -> dict[str, Any]:
        return {
            "repo": published.repo, "commit": published.commit, "url": published.url,
            "selected": summary["selected"], "scored": summary["scored"], "metrics": summary["metrics"],
        }

    @contextmanager
    def _dying_at_deadline(self) -> Iterator[Callable[[], None]]:
        """A clock that ends this process at the publish deadline: nothing is sent after it, whatever hangs."""
        timer = threading.Timer(self._settings.publish_seconds, os._exit, [_DYING_STATUS])
        timer.daemon = True
        try:
            yield timer.start
        finally:
            timer.cancel()

    @contextmanager
    def _stopped_by_force(self) -> Iterator[None]:
        """If the work has to stop while one file's upload takes long, settle and end this process."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(0.2):
                if self._heartbeat.stopping() and not self.uncertain and not over.wait(_PATIENCE_SECONDS):
                    log.warning("upload.abandoned", job=self._job.id)
                    self._abandon()
                    os._exit(_DYING_STATUS)

        watcher = threading.Thread(target=watch, name="upload-watch", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()
