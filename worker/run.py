"""What the supervisor does in one attempt: resolve, download, have the child compute, publish."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import structlog

from app.counters import counters
from app.errors import Code, SpearError
from app.hub.access import check_write
from app.hub.blobs import BlobCache
from app.hub.client import Hub, Hubs, connected
from app.hub.download import Stopped, fetch
from app.hub.inspect import Head
from app.hub.preflight import Preflight, preflight
from app.jobs.callers import Caller
from app.jobs.changes import NewEvent
from app.jobs.database import Database, DatabaseAway
from app.jobs.keys import Keys
from app.jobs.leases import Lease, Leases
from app.jobs.sealed import open_token
from app.jobs.spectra import Spectra
from app.jobs.states import Kind
from app.jobs.tables import Job
from app.recipes import Recipe, Scoring, parse_recipe, parse_scoring
from app.settings import Settings
from worker.child import run_child
from worker.crash import CrashPoints
from worker.force import stopped_by_force
from worker.heartbeat import Heartbeat
from worker.patience import Patience
from worker.pipeline.task import Again, Input, Task
from worker.progress import Progress
from worker.publishing import Publication
from worker.workspace import Workspace

log = structlog.get_logger()

WEIGHTS = ".safetensors"


@dataclass(frozen=True, kw_only=True)
class Run:
    """One attempt at one job. Every step may raise `SpearError`, `StoppedError` or `LeaseLostError`."""

    job: Job
    lease: Lease
    leases: Leases
    database: Database
    settings: Settings
    workspace: Workspace
    progress: Progress
    heartbeat: Heartbeat
    patiently: Patience
    publication: Publication
    abandon: Callable[[], None]
    crash: CrashPoints

    def make(self) -> dict[str, Any]:
        """The job's result."""
        with self._connected() as hubs:
            published = self.publication.reconcile(hubs.publisher)
            if published:
                return published
            with self.workspace.held():
                self.crash.reach("workspace.held")
                return self._make(hubs)

    def _make(self, hubs: Hubs) -> dict[str, Any]:
        recipe = self._recipe()
        checked = self._resolve(recipe, hubs)
        self.crash.reach("resolving.checked")
        self.heartbeat.check()
        inputs = self._download(checked.heads, hubs.service)
        again = None if checked.replay is None else Again(decisions=checked.replay)
        summary = self._compute(recipe, inputs, warnings=checked.warnings, again=again)
        self._keep_documents()
        self.heartbeat.check()
        if isinstance(recipe, Scoring):
            return {"repo": None, "commit": None, "url": None} | summary
        self._admit_target(recipe, hubs)
        return self.publication.publish(hubs.publisher, self.workspace.output, summary=summary)

    def _connected(self) -> AbstractContextManager[Hubs]:
        """The Hub as the job's own credential sees it: the caller's token that came with it, else its key's."""
        keys = Keys(self.database, secret=b"")
        name = self.patiently(lambda: keys.credential(self.job.key_id))
        token = self.patiently(lambda: open_token(self.database, self.job.id, secret=lambda: self.settings.secret))
        return connected(self.settings, credential=name, token=token)

    def _recipe(self) -> Recipe | Scoring:
        return (parse_scoring if self.job.kind == Kind.SCORES else parse_recipe)(self.job.recipe)

    def _resolve(self, recipe: Recipe | Scoring, hubs: Hubs) -> Preflight:
        """The same checks as before queueing, on the pinned commits: grants and access may have been taken away."""
        self.progress.begin("resolving")
        caller = self._caller(refusal=Code.READ_NOT_GRANTED)
        resolved = self.job.resolved
        commits = [resolved["base"]["commit"], *(expert["commit"] for expert in resolved["experts"])]
        with stopped_by_force(self.heartbeat, abandon=self.abandon):
            return preflight(
                recipe, hubs=hubs, settings=self.settings, reads=caller.reads, writes=caller.writes, commits=commits
            )

    def _admit_target(self, recipe: Recipe, hubs: Hubs) -> None:
        """Hours may have passed since `_resolve`: grant and access to the target are asked for once more."""
        caller = self._caller(refusal=Code.WRITE_NOT_GRANTED)
        with stopped_by_force(self.heartbeat, abandon=self.abandon):
            check_write(recipe.target, service=hubs.publisher, writes=caller.writes)

    def _caller(self, *, refusal: Code) -> Caller:
        """What the job's key may do now; raises `SpearError(refusal)` where that is nothing."""
        found = self.patiently(lambda: Keys(self.database, secret=b"").grants(self.job.key_id))
        if found is None:
            raise SpearError(refusal, "the API key that submitted the job is no longer valid")
        return found

    def _download(self, heads: tuple[Head, ...], hub: Hub) -> tuple[Input, ...]:
        """Every input's files in the job's directory, verified."""
        total = sum(file.size for head in heads for file in head.files)
        self.progress.begin("downloading", total=total, unit="bytes")
        cache = BlobCache(self.workspace.cache, max_bytes=self.settings.cache_max_bytes)
        done = 0

        def brought(count: int) -> None:
            nonlocal done
            done += count
            self.heartbeat.progressed()
            self.progress.step(done=done)

        inputs = []
        for number, head in enumerate(heads):
            inputs.append(self._fetch(head, number=number, hub=hub, cache=cache, brought=brought))
        return tuple(inputs)

    def _fetch(self, head: Head, *, number: int, hub: Hub, cache: BlobCache, brought: Any) -> Input:
        pin, into = head.pin, self.workspace.input(number)
        try:
            digests = fetch(
                hub, pin, head.files, cache=cache, into=into, progress=brought, stop=self.heartbeat.stopping,
                workers=self.settings.download_workers,
            )
        except Stopped:
            self.heartbeat.check()
            raise
        for path, digest in sorted(digests.items()):
            data = {"repo": pin.repo, "file": path, "digest": digest}
            self.progress.add(NewEvent(type="file.downloaded", stage="downloading", data=data))
        self.crash.reach("downloading.file")
        return Input(
            repo=pin.repo, revision=pin.revision, commit=pin.commit, license=pin.license, path=into, digests=digests
        )

    def _compute(
        self, recipe: Recipe | Scoring, inputs: tuple[Input, ...], *, warnings: tuple[str, ...],
        again: Again | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Everything that touches weights, in the child."""
        spectra = Spectra(self.database, max_bytes=self.settings.spectra_max_bytes)
        self._write_spectra(spectra, inputs)
        self.crash.reach("spectra.written")
        task = Task(
            job_id=self.job.id, attempt=self.job.attempt, recipe=recipe, inputs=inputs, work_dir=self.workspace.path,
            spectra=self.workspace.spectra, device=self.settings.device, threads=self.settings.compute_threads,
            warnings=warnings, again=again,
        )
        self.workspace.task.write_text(task.model_dump_json())
        self.crash.reach("task.written")
        summary = run_child(
            self.workspace.task, threads=self.settings.compute_threads, check=self.heartbeat.check,
            hear=lambda message: self._hear(message, spectra), started=lambda: self.crash.reach("child.started"),
            kernels=self.workspace.kernels,
        )
        self.crash.reach("child.done")
        return summary

    def _write_spectra(self, spectra: Spectra, inputs: tuple[Input, ...]) -> None:
        read = [one.over(inputs[0]) for one in inputs]
        digests = sorted({digest for one in read for path, digest in one.digests.items() if path.endswith(WEIGHTS)})
        records = self.patiently(lambda: list(spectra.find(digests)))
        with self.workspace.spectra.open("w") as lines:
            lines.writelines(json.dumps(record) + "\n" for record in records)

    def _hear(self, message: dict[str, Any], spectra: Spectra) -> None:
        """One message of the child: into progress, events, or the cache."""
        self.heartbeat.progressed()
        kind = message.pop("kind")
        if kind == "stage":
            self.progress.begin(message["name"], total=message["total"], unit=message["unit"])
        elif kind == "step":
            done = message.pop("done")
            event = NewEvent(type=f"{self.progress.stage}.step", stage=self.progress.stage, data=message)
            self.progress.step(done=done, event=event)
            self.crash.reach(f"{self.progress.stage}.step")
        elif kind == "spectrum":
            self._remember(message["record"], spectra)
        elif kind == "warning":
            self.progress.add(
                NewEvent(type="job.warning", level="warning", stage=self.progress.stage, data=message)
            )

    def _remember(self, record: dict[str, Any], spectra: Spectra) -> None:
        try:
            spectra.add([record])
            self.crash.reach("scoring.spectrum")
        except DatabaseAway as error:  # it will be computed again when it is wanted
            log.warning("spectrum.not_kept", error=type(error).__name__)

    def _keep_documents(self) -> None:
        """The evidence into the database, before anything is published."""
        self.progress.close()
        report = json.loads((self.workspace.path / "report.json").read_text())
        report["costs"]["stages"] = {name: round(spent, 3) for name, spent in self.progress.seconds.items()}
        for source in ("computed", "cached"):
            counters.add("spear_spectra", report["costs"].get(f"spectra_{source}") or 0, source=source)
        documents = {"scores": {"data": report["scores"]}, "report": report}
        spectra = self.workspace.path / "spectra.json"
        if spectra.exists():
            documents["spectra"] = json.loads(spectra.read_text())
        manifest = self.workspace.output / "merge_manifest.json"
        if manifest.exists():
            documents["manifest"] = json.loads(manifest.read_text())
        self.patiently(lambda: self.leases.put_documents(self.lease, documents))
        self.crash.reach("documents.stored")

