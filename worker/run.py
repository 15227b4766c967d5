"""What the supervisor does in one attempt: resolve, download, have the child compute, publish."""

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import structlog

from app.counters import counters
from app.errors import Code, SpearError
from app.hub.access import check_write
from app.hub.client import Hubs, connected
from app.hub.preflight import Preflight, preflight
from app.jobs.callers import Caller
from app.jobs.changes import NewEvent
from app.jobs.database import Database, DatabaseAway
from app.jobs.keys import Keys
from app.jobs.leases import Lease, Leases
from app.jobs.sealed import open_token
from app.jobs.sheets import AnswerSheets
from app.jobs.spectra import Spectra
from app.jobs.states import Kind
from app.jobs.tables import Job
from app.recipes import AnyRecipe, Recipe, Study, parse_measuring, parse_recipe, parse_scoring, parse_study
from app.settings import Settings
from worker.cells import submit_cells
from worker.child import run_child
from worker.crash import CrashPoints
from worker.evaluation.identity import model_digest
from worker.fetching import Fetching
from worker.force import stopped_by_force
from worker.heartbeat import Heartbeat
from worker.patience import Patience
from worker.pipeline.task import Again, Input, Source, Task
from worker.progress import Progress
from worker.publishing import Publication
from worker.workspace import Workspace

log = structlog.get_logger()

WEIGHTS = ".safetensors"
PARSERS: dict[Kind, Callable[[Any], AnyRecipe]] = {
    Kind.MERGE: parse_recipe, Kind.SCORES: parse_scoring, Kind.EVALUATION: parse_measuring, Kind.STUDY: parse_study,
}  # fmt: skip


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
        fetching = Fetching(
            settings=self.settings, workspace=self.workspace, progress=self.progress, heartbeat=self.heartbeat,
            crash=self.crash,
        )
        inputs, sources = fetching.fetch(recipe, checked, hubs)
        again = None if checked.replay is None else Again(decisions=checked.replay, measured=True)
        warnings = (*checked.warnings, *fetching.warnings)
        summary = self._compute(recipe, inputs, sources=sources, warnings=warnings, again=again)
        self._keep_documents()
        self.heartbeat.check()
        _judge(summary.pop("blocked", ()))
        if isinstance(recipe, Study):
            summary = self._submit_cells(recipe, summary)
        if not isinstance(recipe, Recipe):
            return {"repo": None, "commit": None, "url": None} | summary
        self._admit_target(recipe, hubs)
        return self.publication.publish(hubs.publisher, self.workspace.output, summary=summary)

    def _submit_cells(self, study: Study, summary: dict[str, Any]) -> dict[str, Any]:
        """With the merge jobs of what the study publishes."""
        report = json.loads((self.workspace.path / "report.json").read_text())
        told = self.patiently(
            lambda: submit_cells(
                self.job, study, report, lease=self.lease, database=self.database, settings=self.settings
            )
        )
        return {**summary, "metrics": {**summary["metrics"], "published": told}}

    def _connected(self) -> AbstractContextManager[Hubs]:
        """The Hub as the job's own credential sees it: the caller's token that came with it, else its key's."""
        keys = Keys(self.database, secret=b"")
        name = self.patiently(lambda: keys.credential(self.job.key_id))
        token = self.patiently(lambda: open_token(self.database, self.job.id, secret=lambda: self.settings.secret))
        return connected(self.settings, credential=name, token=token)

    def _recipe(self) -> AnyRecipe:
        return PARSERS[Kind(self.job.kind)](self.job.recipe)

    def _resolve(self, recipe: AnyRecipe, hubs: Hubs) -> Preflight:
        """The same checks as before queueing, on the pinned commits: grants and access may have been taken away."""
        self.progress.begin("resolving")
        caller = self._caller(refusal=Code.READ_NOT_GRANTED)
        resolved = self.job.resolved
        inputs = [*([resolved["base"]] if recipe.base else []), *resolved.get("experts", ())]
        inputs += resolved.get("models", ())
        tasks = {(one["repo_type"], one["repo"], one["revision"]): one["commit"] for one in resolved.get("tasks", ())}
        with stopped_by_force(self.heartbeat, abandon=self.abandon):
            return preflight(
                recipe, hubs=hubs, settings=self.settings, reads=caller.reads, writes=caller.writes,
                commits=[one["commit"] for one in inputs], task_commits=tasks,
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

    def _compute(
        self, recipe: AnyRecipe, inputs: tuple[Input, ...], *, sources: tuple[Source, ...], warnings: tuple[str, ...],
        again: Again | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Everything that touches weights, in the child."""
        spectra = Spectra(self.database, max_bytes=self.settings.spectra_max_bytes)
        self._write_spectra(spectra, inputs)
        if sources:
            self._write_sheets(inputs)
        self.crash.reach("spectra.written")
        task = Task(
            job_id=self.job.id, attempt=self.job.attempt, recipe=recipe, inputs=inputs, work_dir=self.workspace.path,
            spectra=self.workspace.spectra, sheets=self.workspace.sheets, sources=sources,
            device=self.settings.device, threads=self.settings.compute_threads,
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

    def _write_sheets(self, inputs: tuple[Input, ...]) -> None:
        """The answers that the inputs are known by."""
        base = inputs[0].digests
        digests = [model_digest(one.digests, base=base if one.is_adapter else None) for one in inputs]
        records = self.patiently(lambda: list(self._sheets.find(digests)))
        with self.workspace.sheets.open("w") as lines:
            lines.writelines(json.dumps(record) + "\n" for record in records)

    @property
    def _sheets(self) -> AnswerSheets:
        return AnswerSheets(self.database, max_bytes=self.settings.sheets_max_bytes)

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
            self._remember("spectrum", lambda: spectra.add([message["record"]]))
            self.crash.reach("scoring.spectrum")
        elif kind == "sheet":
            self._remember("sheet", lambda: self._sheets.add(message["record"]))
        elif kind == "warning":
            self.progress.add(
                NewEvent(type="job.warning", level="warning", stage=self.progress.stage, data=message)
            )

    def _remember(self, what: str, add: Callable[[], None]) -> None:
        try:
            add()
        except DatabaseAway as error:  # it will be computed again when it is wanted
            log.warning(f"{what}.not_kept", error=type(error).__name__)  # noqa: G004  (two events, each a constant)

    def _keep_documents(self) -> None:
        """The evidence into the database, before anything is published."""
        self.progress.close()
        report = json.loads((self.workspace.path / "report.json").read_text())
        report["costs"]["stages"] = {name: round(spent, 3) for name, spent in self.progress.seconds.items()}
        for source in ("computed", "cached"):
            counters.add("spear_spectra", report["costs"].get(f"spectra_{source}") or 0, source=source)
        documents = {"scores": {"data": report.get("scores", [])}, "report": report}
        for name in ("spectra", "sheets", "exports"):
            file = self.workspace.path / f"{name}.json"
            if file.exists():
                documents[name] = json.loads(file.read_text())
        manifest = self.workspace.output / "merge_manifest.json"
        if manifest.exists():
            documents["manifest"] = json.loads(manifest.read_text())
        self.patiently(lambda: self.leases.put_documents(self.lease, documents))
        self.crash.reach("documents.stored")


def _judge(reasons: Sequence[str]) -> None:
    """Raises `SpearError(gate_failed)` where the gate blocks; the report is kept and can be read."""
    if reasons:
        raise SpearError(Code.GATE_FAILED, f"not published: {'; '.join(reasons)}", reasons=list(reasons))
