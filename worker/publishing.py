"""Publishing under the lease: what `app.hub.publish` does, tied to the job's row.

Until the row records the publish, a cancellation stops everything; from there on only the Hub's head decides.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
from opentelemetry.trace import get_current_span

from app.errors import Code, SpearError
from app.hub.client import Hub
from app.hub.commits import trailers
from app.hub.download import Stopped
from app.hub.publish import Published, publish, reconcile
from app.hub.signatures import read_private, sign_manifest
from app.jobs.leases import Lease, Leases
from app.jobs.tables import Job
from app.recipes import Target, parse_recipe
from app.settings import Settings
from app.tracing import tracing
from worker.crash import CrashPoints
from worker.force import dying_at_deadline, stopped_by_force
from worker.heartbeat import Heartbeat, StoppedError
from worker.patience import Patience
from worker.progress import Progress

log = structlog.get_logger()


class Publication:
    """The last stage of one attempt, and the look at what an earlier attempt left on the Hub."""

    def __init__(
        self, job: Job, *, lease: Lease, leases: Leases, settings: Settings, progress: Progress, heartbeat: Heartbeat,
        crash: CrashPoints, patiently: Patience, abandon: Callable[[], None],
    ) -> None:
        """`abandon` settles the job when it must stop while the Hub's client is deep in an upload."""
        self._job = job
        self._lease = lease
        self._leases = leases
        self._settings = settings
        self._progress = progress
        self._heartbeat = heartbeat
        self._crash = crash
        self._patiently = patiently
        self._abandon = abandon
        self._earlier = job.publishing
        self._alone_at = time.monotonic() + _seconds_left(job)
        self._recorded = False
        self._lock = threading.Lock()
        self.uncertain = job.publishing is not None
        """a commit may be on the Hub, or on its way: nobody may end the job as failed"""

    @property
    def _target(self) -> Target:
        return parse_recipe(self._job.recipe).target  # asked for only where something is published

    def reconcile(self, hub: Hub) -> dict[str, Any] | None:
        """The result, if an earlier attempt's commit is on the Hub.

        Where it is not, after that attempt's deadline, the row forgets that attempt. A job beyond its attempts was
        taken for this look alone: it waits for that deadline, and then raises what the last attempt failed of.
        """
        if self._earlier is None:
            return None
        self._progress.begin("publishing")
        spent = self._job.attempt > self._job.max_attempts
        while True:
            alone = self._alone()  # asked before the look: what is sent later would not be seen by it
            published = self._look(hub)
            if published:
                self._crash.reach("publishing.reconciled")
                return self._result(published, summary=self._earlier["summary"])
            if alone or not spent:
                break
            self._outlive_others()
        if alone:
            self._forget()
        if spent:
            raise _last_error(self._job)
        return None

    def publish(self, hub: Hub, folder: Path, *, summary: dict[str, Any]) -> dict[str, Any]:
        """The result, once the commit is known to be on the target."""
        if self._settings.signing_key_file:
            sign_manifest(folder, key=read_private(self._settings.signing_key_file))
        total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        self._progress.begin("publishing", total=total, unit="bytes")
        self._tell_late(hub)
        try:
            published = self._send(hub, folder, summary=summary, total=total)
        except Stopped:
            raise self._stopped() from None
        except SpearError as error:
            published = self._judge(hub, error)
        self._crash.reach("publishing.committed")
        return self._result(published, summary=summary)

    def _send(self, hub: Hub, folder: Path, *, summary: dict[str, Any], total: int) -> Published:
        stored = 0

        def store(count: int) -> None:
            nonlocal stored
            stored += count
            self._heartbeat.progressed()
            self._progress.step(done=min(stored, total))

        with (
            stopped_by_force(
                self._heartbeat, abandon=self._abandon, too_late=lambda: self._recorded, lock=self._lock
            ),
            dying_at_deadline(self._settings.publish_seconds) as start_clock,
            tracing.span("publish", repo=self._target.repo, branch=self._target.branch) as span,
        ):
            published = publish(
                hub, self._target, folder, job_id=self._job.id, title=self._title(),
                manifest_sha256=summary["manifest_sha256"],
                parent=self._earlier["parent"] if self._earlier else None,
                record=lambda parent: self._record(parent, summary=summary, start_clock=start_clock),
                check_lease=lambda: self._patiently(lambda: self._leases.check(self._lease)),
                progress=store, stop=self._heartbeat.stopping,
                deadline_seconds=0.8 * self._settings.publish_seconds,
                reach=self._reach,
                made=lambda what, head: self._patiently(
                    lambda: self._leases.note_target(self._lease, what=what, head=head)
                ),
            )
            span.set_attribute("commit", published.commit)
            return published

    def _reach(self, name: str) -> None:
        """A step that can be seen from outside: in the trace, and for tests that die there."""
        get_current_span().add_event(name)
        self._crash.reach(f"publishing.{name}")

    def _record(self, parent: str, *, summary: dict[str, Any], start_clock: Callable[[], None]) -> None:
        """The point of no return. This process's clock begins first, so that it never ends after the row's deadline."""
        start_clock()
        with self._lock:
            self.uncertain = self._recorded = True
            # written twice where the first answer was lost: the row's deadline only moves away from this process's
            self._patiently(lambda: self._leases.record_publishing(
                self._lease, parent=parent, manifest_sha256=summary["manifest_sha256"], summary=summary,
                seconds=self._settings.publish_seconds,
            ))
        self._reach("recorded")

    def _judge(self, hub: Hub, error: SpearError) -> Published:
        """What a failed publish means for the job: raises the error, and `uncertain` says if it may end the job.

        Where the Hub refused for good, only another attempt's commit can be under way; that one is waited for.
        """
        if _decided(error):
            self.uncertain = False
        elif self.uncertain and error.code is not Code.HUB_UNAVAILABLE:
            self._outlive_others()
            published = self._look(hub) if self._earlier else None
            if published:
                return published
            self.uncertain = False
        raise error

    def _look(self, hub: Hub) -> Published | None:
        """What became of the earlier attempt's commit."""
        assert self._earlier is not None
        try:
            return reconcile(
                hub, self._target, self._job.id, parent=self._earlier["parent"], stop=self._heartbeat.stopping
            )
        except Stopped:
            raise self._stopped() from None
        except SpearError as error:
            self.uncertain = not _decided(error)
            raise

    def _forget(self) -> None:
        """The earlier attempt's commit is not on the Hub, and nobody is left who could send it."""
        self._patiently(lambda: self._leases.forget_publishing(self._lease))
        self._crash.reach("publishing.forgotten")
        self._earlier = None
        self.uncertain = False

    def _tell_late(self, hub: Hub) -> None:
        """Commits of ended jobs that were looked for in vain, and stand on the branch now: told, never repeated."""
        sought = set(self._patiently(lambda: self._leases.sought_in_vain(self._job)))
        if not sought:
            return
        for oid, job_id, manifest_sha256 in trailers(hub, self._target):
            if job_id in sought:
                log.warning("publish.late", job=job_id, commit=oid)
                self._leases.tell_late(
                    job_id, repo=self._target.repo, commit=oid, manifest_sha256=manifest_sha256
                )

    def _alone(self) -> bool:
        """Whether the earlier attempt's process is dead, by its own deadline."""
        return time.monotonic() >= self._alone_at

    def _outlive_others(self) -> None:
        while not self._alone():
            self._heartbeat.progressed()
            self._heartbeat.check()
            time.sleep(min(0.2, max(0.0, self._alone_at - time.monotonic())))

    def _stopped(self) -> StoppedError:
        try:
            self._heartbeat.check()
        except StoppedError as stop:
            return stop
        raise AssertionError  # the work stops for nothing else

    def _title(self) -> str:
        recipe = self._job.recipe
        return f"Merge {recipe['base']['repo']} and {recipe['experts'][0]['repo']} by {recipe['method']['name']}"

    def _result(self, published: Published, *, summary: dict[str, Any]) -> dict[str, Any]:
        return {
            "repo": published.repo, "commit": published.commit, "url": published.url,
            "selected": summary["selected"], "scored": summary["scored"], "metrics": summary["metrics"],
        }


def _decided(error: SpearError) -> bool:
    """Whether no commit of the job can land any more: the parent is gone, or the commit stands there, and is wrong."""
    return error.code is Code.TARGET_MOVED or (error.code is Code.VERIFICATION_FAILED and "commit" in error.names)


def _seconds_left(job: Job) -> float:
    """From the claim to the earlier attempt's deadline, both by the database's clock."""
    if job.publish_deadline is None:
        return 0.0
    return (job.publish_deadline - job.updated_at).total_seconds()


def _last_error(job: Job) -> SpearError:
    """What the attempt before failed of, as the row tells it."""
    if job.error is None:
        return SpearError(Code.WORKER_LOST, "the worker that published went away, and its commit is not on the Hub")
    return SpearError(Code(job.error["code"]), job.error["message"], **job.error.get("names", {}))
