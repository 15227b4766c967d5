"""The directories of this machine: one per job, and the cache that all jobs share."""

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.errors import Code, SpearError

_PATIENCE_SECONDS = 10.0


@dataclass(frozen=True)
class Workspace:
    """Where one job works. It outlives an attempt, so that the next one resumes, and is removed when the job ends."""

    root: Path
    job_id: str

    @property
    def path(self) -> Path:
        return self.root / "jobs" / self.job_id

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def kernels(self) -> Path:
        """Code that the children have compiled for this machine; safe to remove when no job runs."""
        return self.root / "kernels"

    @property
    def output(self) -> Path:
        return self.path / "output"

    @property
    def spectra(self) -> Path:
        return self.path / "spectra.jsonl"

    @property
    def sheets(self) -> Path:
        return self.path / "sheets.jsonl"

    @property
    def task(self) -> Path:
        return self.path / "task.json"

    def input(self, number: int) -> Path:
        """The folder of input `number`, the base being 0."""
        return self.path / "inputs" / str(number)

    @contextmanager
    def held(self) -> Iterator[None]:
        """The directory, made if need be and private to this user, for one attempt at a time on this machine.

        Raises `SpearError(worker_lost)` while an attempt that lost its lease still writes in it.
        """
        for folder in (self.root, self.path.parent, self.cache, self.kernels, self.path):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _lock(handle, job_id=self.job_id)
            yield
        finally:
            os.close(handle)

    def remove(self) -> None:
        """Remove everything of this job."""
        shutil.rmtree(self.path, ignore_errors=True)


def clear(root: Path, *, unfinished: Callable[[Sequence[str]], set[str]]) -> None:
    """Remove the directories of jobs that have ended elsewhere: cancelled while queued, failed by the sweep, ...

    Their links would keep files in the cache for ever.
    """
    folder = root / "jobs"
    found = [path.name for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    for name in set(found) - (unfinished(found) if found else set()):
        Workspace(root, name).remove()


def _lock(handle: int, *, job_id: str) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                message = f"an earlier attempt at {job_id} is still at work on this machine"
                raise SpearError(Code.WORKER_LOST, message, job=job_id) from None
            time.sleep(0.2)
        else:
            return
