"""A running job on the screen: bars on a terminal, plain lines elsewhere; always on stderr."""

import time
from collections.abc import Iterable
from contextlib import AbstractContextManager
from datetime import datetime
from types import TracebackType
from typing import Protocol, Self

import typer
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from app.client.calls import TERMINAL
from app.client.types import Job, Stage
from app.console.screen import Exit, err, left, span, total

LINE_SECONDS = 5.0
"""between two lines about the same stage"""
Key = tuple[int, str]


class View(AbstractContextManager["View"], Protocol):
    """Something that shows a job as it changes."""

    def tell(self, job: Job) -> None: ...


def follow(changes: Iterable[Job]) -> Job:
    """Show the job until it has ended; the job as it ended. Ctrl-C ends the showing only, with `Exit.INTERRUPTED`."""
    job: Job | None = None
    try:
        with view() as shown:
            for job in changes:
                shown.tell(job)
    except KeyboardInterrupt:
        if job is None:
            raise
        err.print(f"{job['id']} goes on; see `spear watch {job['id']}`, or `spear cancel {job['id']}`", soft_wrap=True)
        raise typer.Exit(Exit.INTERRUPTED) from None
    assert job is not None
    return job


def view() -> View:
    """Bars where they can be drawn."""
    return Bars() if err.is_terminal else Lines()


class Bars:
    """A bar for each stage of each attempt."""

    def __init__(self) -> None:
        self._bars = Progress(
            SpinnerColumn(finished_text="✓"), TextColumn("{task.description:12}"), BarColumn(bar_width=32),
            TextColumn("{task.percentage:>3.0f}%"), TimeElapsedColumn(), TextColumn("{task.fields[note]}"),
            console=err,
        )  # fmt: skip
        self._drawn: dict[Key, TaskID] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def tell(self, job: Job) -> None:
        waiting = job["status"] == "queued"
        if waiting or (0, "queued") in self._drawn:
            self._update((0, "queued"), ended=not waiting, percent=None, note="waits for a worker" if waiting else "")
        for stage in job["stages"]:
            again = f"attempt {stage['attempt']}" if stage["attempt"] > 1 else ""
            ended = stage["ended_at"] is not None
            here = not ended and stage is job["stages"][-1] and job["progress"] is not None
            amount = job["progress"] if here else None
            note = " ".join(filter(None, [again, took(stage) if ended else left(amount)]))
            self._update(
                (stage["attempt"], stage["name"]), ended=ended, percent=amount["percent"] if amount else None, note=note
            )

    def _update(self, key: Key, *, ended: bool, percent: float | None, note: str) -> None:
        if key not in self._drawn:
            self._drawn[key] = self._bars.add_task(key[1], total=None, note=note)
        if ended:
            self._bars.update(self._drawn[key], total=100, completed=100, note=note)
        elif percent is not None:
            self._bars.update(self._drawn[key], total=100, completed=percent, note=note)
        else:
            self._bars.update(self._drawn[key], note=note)


class Lines:
    """A line when a stage begins and ends, and every few seconds in between: for logs of pipelines."""

    def __init__(self) -> None:
        self._status = ""
        self._begun: set[Key] = set()
        self._ended: set[Key] = set()
        self._said_at = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def tell(self, job: Job) -> None:
        ended = job["status"] in TERMINAL
        if not ended:
            self._tell_status(job)
        for stage in job["stages"]:
            self._stage(stage)
        if ended:  # after its last stage
            self._tell_status(job)
        amount, due = job["progress"], time.monotonic() - self._said_at >= LINE_SECONDS
        if amount and job["stage"] and due:
            self._say(f"{job['stage']}: {amount['percent']:.0f} % of {total(amount)}, {left(amount)}".rstrip(", "))

    def _tell_status(self, job: Job) -> None:
        if job["status"] != self._status:
            self._status = job["status"]
            self._say(f"{job['id']} {self._status}")

    def _stage(self, stage: Stage) -> None:
        key = (stage["attempt"], stage["name"])
        if key not in self._begun:
            self._begun.add(key)
            self._say(stage["name"] + (f" (attempt {stage['attempt']})" if stage["attempt"] > 1 else ""))
        if stage["ended_at"] and key not in self._ended:
            self._ended.add(key)
            self._say(f"{stage['name']}: done, {took(stage)}")

    def _say(self, text: str) -> None:
        self._said_at = time.monotonic()
        err.print(text, soft_wrap=True, markup=False)


def took(stage: Stage) -> str:
    """How long an ended stage was, by the service's clock."""
    if stage["ended_at"] is None:
        return ""
    begun, ended = (datetime.fromisoformat(stage[key] or "") for key in ("started_at", "ended_at"))
    seconds = (ended - begun).total_seconds()
    return f"{seconds:.1f} s" if seconds < 10 else span(seconds)
