"""The directories of this machine: one per job, and the cache that all jobs share."""

import shutil
from dataclasses import dataclass
from pathlib import Path


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
    def output(self) -> Path:
        return self.path / "output"

    @property
    def spectra(self) -> Path:
        return self.path / "spectra.jsonl"

    @property
    def task(self) -> Path:
        return self.path / "task.json"

    def input(self, number: int) -> Path:
        """The folder of input `number`, the base being 0."""
        return self.path / "inputs" / str(number)

    def create(self) -> None:
        """Make the directory, private to this user."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def remove(self) -> None:
        """Remove everything of this job."""
        shutil.rmtree(self.path, ignore_errors=True)
