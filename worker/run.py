"""What the supervisor does in one attempt: resolve, download, have the child compute, publish."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from app.errors import Code, SpearError
from app.hub.access import check_read, check_write
from app.hub.client import Hub
from app.hub.download import fetch
from app.hub.pins import Pin, pin
from app.jobs.changes import NewEvent
from app.jobs.database import Database
from app.jobs.keys import Caller, Keys
from app.jobs.leases import Lease, Leases
from app.jobs.spectra import Spectra
from app.jobs.tables import Job
from app.recipes import Recipe, parse_recipe
from app.settings import Settings
from worker.child import run_child
from worker.heartbeat import Heartbeat
from worker.pipeline.task import Input, Task
from worker.progress import Progress
from worker.publishing import Publication
from worker.workspace import Workspace


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
    publication: Publication

    def make(self) -> dict[str, Any]:
        """The job's result."""
        published = self.publication.reconcile()
        if published:
            return published
        self.workspace.create()
        recipe = parse_recipe(self.job.recipe)
        pins = self._resolve(recipe)
        inputs = self._download(pins)
        summary = self._compute(recipe, inputs)
        self._keep_documents()
        return self.publication.publish(recipe.target, self.workspace.output, summary=summary)
