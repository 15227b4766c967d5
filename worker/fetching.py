"""The stage `downloading`: what tasks are made of, checked at once, and then the models' files."""

from dataclasses import dataclass, field
from pathlib import Path

from app.hub.blobs import BlobCache
from app.hub.client import Hub, Hubs
from app.hub.download import Stopped, fetch
from app.hub.inspect import Head
from app.hub.pins import Pin, RemoteFile
from app.hub.preflight import Preflight
from app.hub.tasks import Material
from app.jobs.changes import NewEvent
from app.recipes import AnyRecipe, Scoring
from app.recipes.evaluation import AnyTask, FileTask
from app.settings import Settings
from worker.crash import CrashPoints
from worker.evaluation.files import check_apart, item_digest, read_items
from worker.heartbeat import Heartbeat
from worker.pipeline.task import Input, Source
from worker.progress import Progress
from worker.workspace import Workspace


@dataclass(kw_only=True)
class Fetching:
    """Everything into the job's directory, verified, in one stage with one count of bytes."""

    settings: Settings
    workspace: Workspace
    progress: Progress
    heartbeat: Heartbeat
    crash: CrashPoints
    done: int = 0
    warnings: list[str] = field(default_factory=list)
    """what was seen in the files, for the report"""

    def fetch(self, recipe: AnyRecipe, checked: Preflight, hubs: Hubs) -> tuple[tuple[Input, ...], tuple[Source, ...]]:
        """The inputs and the tasks' sources. Raises `SpearError` as `fetch` and `read_items` do."""
        self.progress.begin("downloading", total=_bytes(checked), unit="bytes")
        sources = tuple(self._source(one, number=i, hubs=hubs) for i, one in enumerate(checked.materials))
        self.warnings += _check_files(recipe, sources)  # before the weights: a bad line is told within seconds
        for message in self.warnings:
            event = NewEvent(type="job.warning", level="warning", stage="downloading", data={"message": message})
            self.progress.add(event)
        heads = enumerate(checked.heads)
        return tuple(self._input(head, number=number, hub=hubs.service) for number, head in heads), sources

    def _input(self, head: Head, *, number: int, hub: Hub) -> Input:
        pin, into = head.pin, self.workspace.input(number)
        digests = self._files(hub, pin, head.files, into=into)
        return Input(
            repo=pin.repo, revision=pin.revision, commit=pin.commit, license=pin.license, path=into, digests=digests
        )

    def _source(self, material: Material, *, number: int, hubs: Hubs) -> Source:
        pin = material.pin
        # where lm-eval's tasks look: a folder of the data set's own name below their working directory
        into = self.workspace.path / "data" / ("sets" if material.registered else f"files/{number}")
        into = into / pin.repo if material.registered else into
        digests = self._files(hubs.of(material.repo_type).service, pin, material.files, into=into)
        return Source(
            repo=pin.repo, repo_type=material.repo_type, revision=pin.revision, commit=pin.commit, path=into,
            digests=digests,
        )

    def _files(self, hub: Hub, pin: Pin, files: tuple[RemoteFile, ...], *, into: Path) -> dict[str, str]:
        cache = BlobCache(self.workspace.cache, max_bytes=self.settings.cache_max_bytes)
        try:
            digests = fetch(
                hub, pin, files, cache=cache, into=into, progress=self._brought, stop=self.heartbeat.stopping,
                workers=self.settings.download_workers,
            )
        except Stopped:
            self.heartbeat.check()
            raise
        for path, digest in sorted(digests.items()):
            data = {"repo": pin.repo, "file": path, "digest": digest}
            self.progress.add(NewEvent(type="file.downloaded", stage="downloading", data=data))
        self.crash.reach("downloading.file")
        return digests

    def _brought(self, count: int) -> None:
        self.done += count
        self.heartbeat.progressed()
        self.progress.step(done=self.done)


def _bytes(checked: Preflight) -> int:
    weights = sum(file.size for head in checked.heads for file in head.files)
    return weights + sum(file.size for material in checked.materials for file in material.files)


def _check_files(recipe: AnyRecipe, sources: tuple[Source, ...]) -> list[str]:
    """Every line of every task file, and that calibration is apart from what is reported on; words of warning."""
    evaluation = None if isinstance(recipe, Scoring) else recipe.evaluation
    if evaluation is None:
        return []

    def digests(tasks: tuple[AnyTask, ...]) -> dict[str, list[bytes]]:
        found = {}
        for task in (task for task in tasks if isinstance(task, FileTask)):
            source = next(source for source in sources if source.holds(task))
            items = [item_digest(item) for item in read_items(task, source.path / task.path)]
            found[task.label] = items[: evaluation.limit]
        return found

    calibration = evaluation.calibration
    return check_apart(digests(evaluation.tasks), digests(calibration.tasks if calibration else ()))
