"""Jobs on a terminal: progress bars on stderr, tables on stdout."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from app.client.types import Failure, Job, Result, Score

err = Console(stderr=True, highlight=False)
out = Console(highlight=False)


def follow(changes: Iterable[Job]) -> Job:
    """Draw a bar per stage while the job runs; the job as it ended."""
    job: Job
    columns = (
        SpinnerColumn(finished_text="✓"), TextColumn("{task.description:12}"), BarColumn(bar_width=40),
        TextColumn("{task.percentage:>3.0f}%"), TimeElapsedColumn(), TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=err) as bars:
        drawn: dict[tuple[int, str], TaskID] = {}
        for job in changes:
            _draw(bars, drawn, job)
    return job


def _draw(bars: Progress, drawn: dict[tuple[int, str], TaskID], job: Job) -> None:
    for stage in job["stages"]:
        key = (stage["attempt"], stage["name"])
        if key not in drawn:
            again = f"attempt {stage['attempt']}" if stage["attempt"] > 1 else ""
            drawn[key] = bars.add_task(stage["name"], total=100, note=again)
        if stage["ended_at"]:
            bars.update(drawn[key], completed=100, note="")
        elif job["progress"]:
            eta = job["progress"]["eta_seconds"]
            note = f"{eta:.0f} s left" if eta is not None else ""
            bars.update(drawn[key], completed=job["progress"]["percent"], note=note)


def show(job: Job) -> None:
    """One job, all that a person asks first."""
    for name, value in _facts(job):
        out.print(f"[bold]{name:10}[/bold] {escape(value)}", soft_wrap=True)


def _facts(job: Job) -> Iterable[tuple[str, str]]:
    recipe, progress = job["recipe"], job["progress"]
    yield "job", job["id"]
    yield "status", job["status"] + (f" ({job['stage']})" if job["stage"] else "")
    if progress:
        yield "progress", f"{progress['percent']} % of {progress['total']:.3g} {progress['unit']}"
    yield "attempt", f"{job['attempt']} of {job['max_attempts']}"
    yield "method", recipe["method"]["name"]
    for role, pinned in (("base", job["resolved"]["base"]), *(("expert", e) for e in job["resolved"]["experts"])):
        yield role, f"{pinned['repo']}@{pinned['commit'][:12]}"
    if "target" in recipe:
        yield "target", f"{recipe['target']['repo']}@{recipe['target']['branch']}"
    yield from _outcome(job["result"], job["error"])
    yield "created", job["created_at"]
    if job["ended_at"]:
        yield "ended", job["ended_at"]


def _outcome(result: Result | None, error: Failure | None) -> Iterable[tuple[str, str]]:
    if result and result["url"]:
        yield "published", result["url"]
    if result:
        yield "selected", f"{result['selected']} of {result['scored']} scored tensors"
    if error:
        yield "error", f"{error['code']}: {error['message']}"
    if error and error["hint"]:
        yield "hint", error["hint"]


def show_list(jobs: Sequence[Job]) -> None:
    """Jobs as a table."""
    heads = ("status", "stage", "method", "target", "created")
    table = Table(Column("job", no_wrap=True), *heads, box=None, pad_edge=False)
    for job in jobs:
        table.add_row(
            job["id"], job["status"], job["stage"] or "", job["recipe"]["method"]["name"],
            job["recipe"]["target"]["repo"], job["created_at"][:19],
        )
    out.print(table)


def show_scores(rows: Sequence[Score]) -> None:
    """Scored tensors as a table, best score first."""
    heads = [Column(name, justify="right") for name in ("score", "snr", "change", "swci", "svdr")]
    table = Table(Column("tensor", no_wrap=True), *heads, "restored", box=None, pad_edge=False)
    for row in sorted(rows, key=lambda row: (-(row["score"] or 0), row["name"])):
        figures = [_figure(row[key]) for key in ("score", "snr", "relative_change", "swci", "svdr")]
        table.add_row(escape(row["name"]), *figures, f"t = {row['t']:g}" if row["selected"] else "")
    chosen = [row for row in rows if row["selected"]]
    whole, part = (sum(math.prod(row["shape"]) for row in some) for some in (rows, chosen))
    wide = Measurement.get(out, out.options.update(max_width=1000), table).maximum
    Console(width=max(out.width, wide), highlight=False).print(table)  # a figure cut short is none
    out.print(f"would restore {len(chosen)} of {len(rows)} matrices, {part / max(whole, 1):.1%} of their parameters")


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def show_problem(problem: dict[str, Any]) -> None:
    """An error of the service, with what to do about it."""
    err.print(f"[bold red]{problem.get('code', 'error')}[/bold red]: {problem.get('detail', '')}", soft_wrap=True)
    for error in problem.get("errors", []):
        err.print(f"  {error['pointer'] or '/'}: {error['detail']}", soft_wrap=True)
    if problem.get("hint"):
        err.print(f"  hint: {problem['hint']}", soft_wrap=True)
