"""What an evaluation's tasks are made of: checked and pinned before anything is queued, without downloading data."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from app.errors import Code, SpearError
from app.hub.access import check_read
from app.hub.client import Hubs, RepoType
from app.hub.datasets import CARD, data_files
from app.hub.inspect import read_small
from app.hub.pins import Pin, RemoteFile, pin
from app.recipes.catalogue import Leaf, leaves
from app.recipes.evaluation import AnyTask, Evaluation, FileTask, RegisteredTask
from app.settings import Settings

_ABSENT = frozenset({Code.REPO_NOT_FOUND, Code.READ_NOT_GRANTED})
Commits = Mapping[tuple[str, str, str], str]
"""pinned commits by repository type, name and revision"""


@dataclass(frozen=True)
class Material:
    """Files of one repository that tasks are made of."""

    repo_type: RepoType
    pin: Pin
    files: tuple[RemoteFile, ...]
    registered: bool
    """whether lm-eval's own tasks read it, as a data set in a folder of its name"""


class Materials:
    """Collects the repositories of all tasks, each pinned once."""

    def __init__(
        self, *, hubs: Hubs, settings: Settings, reads: Sequence[str], commits: Commits | None = None
    ) -> None:
        self._hubs = hubs
        self._settings = settings
        self._reads = reads
        self._commits = commits
        self._pins: dict[tuple[str, str, str], Pin] = {}
        self._found: dict[tuple[str, str, str, bool], Material] = {}
        self._cards: dict[str, bytes] = {}

    def of(self, evaluation: Evaluation) -> tuple[Material, ...]:
        """Everything that must be fetched, checked as far as it can be without fetching it.

        Raises `SpearError` with the recipe's pointer: `task_unknown`, `task_unsupported`, `task_empty`, the refusals of
        access, `limit_exceeded`, `invalid_recipe` where a task to calibrate on is one to report on under another name.
        """
        held_out = self._sources(evaluation.general, at="/evaluation/general")
        held_out |= self._sources(evaluation.domain, at="/evaluation/domain")
        calibration = evaluation.calibration
        if calibration:
            chosen = self._sources(calibration.general, at="/evaluation/calibration/general")
            chosen |= self._sources(calibration.domain, at="/evaluation/calibration/domain")
            _refuse_shared(held_out, chosen)
        return tuple(self._found.values())

    def _sources(self, tasks: Sequence[AnyTask], *, at: str) -> dict[str, str]:
        """What the tasks' items come from (a file's digest, a registered task's name), each with the task's label."""
        found: dict[str, str] = {}
        for number, task in enumerate(tasks):
            with _at(f"{at}/{number}", task):
                found |= dict.fromkeys(self._add(task), task.label)
        return found

    def _add(self, task: AnyTask) -> list[str]:
        if isinstance(task, RegisteredTask):
            behind = leaves(task.task)
            for leaf in behind:
                self._add_leaf(leaf)
            return [leaf.name for leaf in behind]
        return [self._add_file(task)]

    def _add_file(self, task: FileTask) -> str:
        repo_type = self._type_of(task)
        pinned = self._pin(repo_type, task.repo, task.revision)
        file = pinned.file(task.path)
        if file is None:
            message = f"{task.repo} has no file {task.path} at {task.revision}"
            raise SpearError(Code.TASK_INVALID, message, repo=task.repo, file=task.path)
        if file.size == 0:
            raise SpearError(Code.TASK_EMPTY, f"{task.repo}: {task.path} is empty", repo=task.repo, file=task.path)
        _bounded([file], repo=task.repo, limit=self._settings.max_task_bytes, name="max_task_bytes")
        self._keep(repo_type, pinned, (file,), registered=False)
        return file.digest

    def _add_leaf(self, leaf: Leaf) -> None:
        pinned = self._pin("dataset", leaf.dataset, "main")
        files = data_files(pinned, card=self._card(pinned), config=leaf.config, task=leaf.name)
        _bounded(files, repo=leaf.dataset, limit=self._settings.max_dataset_bytes, name="max_dataset_bytes")
        self._keep("dataset", pinned, files, registered=True)

    def _card(self, pinned: Pin) -> bytes:
        """The data set's card, read once for all tasks of a group."""
        if pinned.repo not in self._cards:
            card, hub = pinned.file(CARD), self._hubs.of("dataset").service
            said = read_small(hub, pinned, card, settings=self._settings) if card and card.size else b""
            self._cards[pinned.repo] = said
        return self._cards[pinned.repo]

    def _type_of(self, task: FileTask) -> RepoType:
        """As the recipe says; else a data set, if there is one of this name that may be read, else a model."""
        if task.repo_type:
            return task.repo_type
        known = [kind for kind, repo, revision in self._commits or () if (repo, revision) == (task.repo, task.revision)]
        if known:
            return "dataset" if "dataset" in known else "model"
        try:
            self._pin("dataset", task.repo, task.revision)
        except SpearError as error:
            if error.code not in _ABSENT:
                raise
            return "model"
        return "dataset"

    def _pin(self, repo_type: RepoType, repo: str, revision: str) -> Pin:
        key = (repo_type, repo, revision)
        if key not in self._pins:
            hubs = self._hubs.of(repo_type)
            check_read(repo, anonymous=hubs.anonymous, service=hubs.service, reads=self._reads)
            commit = self._commits.get(key) if self._commits is not None else None
            found = pin(hubs.service, repo, commit or revision, max_files=self._settings.max_files)
            self._pins[key] = replace(found, revision=revision)
        return self._pins[key]

    def _keep(self, repo_type: RepoType, pinned: Pin, files: tuple[RemoteFile, ...], *, registered: bool) -> None:
        key = (repo_type, pinned.repo, pinned.revision, registered)
        before = self._found[key].files if key in self._found else ()
        self._found[key] = Material(
            repo_type=repo_type, pin=pinned, files=tuple(dict.fromkeys((*before, *files))), registered=registered
        )


def _bounded(files: Sequence[RemoteFile], *, repo: str, limit: int, name: str) -> None:
    total = sum(file.size for file in files)
    if total > limit:
        message = f"{repo}: the task's files have {total} bytes; {limit} are allowed"
        raise SpearError(Code.LIMIT_EXCEEDED, message, repo=repo, limit=name)


def _refuse_shared(held_out: Mapping[str, str], calibration: Mapping[str, str]) -> None:
    """The same items under two names, as a group and one of its tasks, or one file in two places."""
    for source, label in calibration.items():
        if source in held_out:
            message = f"calibration task {label} has the items of {held_out[source]}, which is to be reported on"
            raise SpearError(Code.INVALID_RECIPE, message, pointer="/evaluation/calibration", task=label)


@contextmanager
def _at(pointer: str, task: AnyTask) -> Iterator[None]:
    """Gives refusals from inside their place in the recipe."""
    fields = {
        Code.REVISION_NOT_FOUND: "revision", Code.TASK_INVALID: "path", Code.TASK_EMPTY: "path",
        Code.LIMIT_EXCEEDED: "path",
    }  # fmt: skip
    try:
        yield
    except SpearError as error:
        field = "task" if isinstance(task, RegisteredTask) else fields.get(error.code, "repo")
        error.pointer = error.pointer or f"{pointer}/{field}"
        raise
