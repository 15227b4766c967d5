"""What people read on stdout: facts in two columns, lists as tables."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Column, Table

from app.client.types import Delivery, Event, Failure, Job, Method, Plan, Result, Score
from app.console.screen import figure, left, moment, out, size, total

COLOURS = {"succeeded": "green", "failed": "red", "cancelled": "yellow", "running": "cyan"}


def facts(pairs: Iterable[tuple[str, str]]) -> None:
    """Names and values, one below the other."""
    for name, value in pairs:
        out.print(f"[bold]{name:10}[/bold] {value if name == 'status' else escape(value)}", soft_wrap=True)


def table(heads: Sequence[str | Column], rows: Iterable[Sequence[str]]) -> None:
    """A table whose first column is never broken."""
    first, *rest = heads
    made = Table(Column(str(first), no_wrap=True), *rest, box=None, pad_edge=False)
    for row in rows:
        made.add_row(*row)
    wide = Measurement.get(out, out.options.update(max_width=1000), made).maximum
    # a figure or an id cut short is none: only a terminal's width is a reason to break lines
    Console(width=max(out.width, wide) if not out.is_terminal else None, highlight=False).print(made)


def show(job: Job) -> None:
    """One job, all that a person asks first."""
    facts(_of_job(job))


def _of_job(job: Job) -> Iterable[tuple[str, str]]:
    recipe, progress = job["recipe"], job["progress"]
    yield "job", job["id"]
    yield "status", status(job) + (f" ({escape(job['stage'])})" if job["stage"] else "")
    if progress and not job["ended_at"]:
        yield "progress", f"{progress['percent']:.0f} % of {total(progress)}, {left(progress)}".rstrip(", ")
    yield "attempt", f"{job['attempt']} of {job['max_attempts']}"
    yield "method", method(job)
    yield from _of_inputs(job)
    if "target" in recipe:
        yield "target", f"{recipe['target']['repo']}@{recipe['target']['branch']}"
    yield from ((f"label {name}", value) for name, value in job["labels"].items())
    yield from _of_outcome(job["result"], job["error"])
    yield "created", f"{moment(job['created_at'])} UTC"
    if job["ended_at"]:
        yield "ended", f"{moment(job['ended_at'])} UTC"


def _of_inputs(job: Job) -> Iterable[tuple[str, str]]:
    resolved = job["resolved"]
    pinned = [("base", resolved.get("base")), *(("expert", each) for each in resolved.get("experts", ()))]
    return [(role, f"{each['repo']}@{each['commit'][:12]}") for role, each in pinned if each]


def _of_outcome(result: Result | None, error: Failure | None) -> Iterable[tuple[str, str]]:
    if result and result["url"]:
        yield "published", result["url"]
    if result and result.get("scored"):
        yield "selected", f"{result['selected']} of {result['scored']} scored tensors"
    if error:
        yield "error", f"{error['code']}: {error['message']}"
    if error and error["hint"]:
        yield "hint", error["hint"]


def status(job: Job) -> str:
    """The status in its colour."""
    colour = COLOURS.get(job["status"])
    return f"[{colour}]{job['status']}[/{colour}]" if colour else job["status"]


def method(job: Job) -> str:
    """The method's name; jobs that only measure have none."""
    return str((job["recipe"].get("method") or {}).get("name", "-"))


def show_list(jobs: Sequence[Job]) -> None:
    """Jobs as a table."""
    table(
        ("job", "status", "stage", "method", "target", "created"),
        [
            (job["id"], status(job), job["stage"] or "", method(job),
             (job["recipe"].get("target") or {}).get("repo", "-"), moment(job["created_at"]))
            for job in jobs
        ],
    )  # fmt: skip


def show_scores(rows: Sequence[Score]) -> None:
    """Scored tensors as a table, best score first."""
    heads = [Column(name, justify="right") for name in ("score", "snr", "change", "swci", "svdr")]
    ordered = sorted(rows, key=lambda row: (-(row["score"] or 0), row["name"]))
    table(
        ("tensor", *heads, "restored"),
        [
            (escape(row["name"]), figure(row["score"]), figure(row["snr"]), figure(row["relative_change"]),
             figure(row["swci"]), figure(row["svdr"]), f"t = {row['t']:g}" if row["selected"] else "")
            for row in ordered
        ],
    )  # fmt: skip
    chosen = [row for row in rows if row["selected"]]
    whole, part = (sum(math.prod(row["shape"]) for row in some) for some in (rows, chosen))
    out.print(f"would restore {len(chosen)} of {len(rows)} matrices, {part / max(whole, 1):.1%} of their parameters")


def show_plan(plan: Plan) -> None:
    """What a merge would do, or why it would be refused."""
    facts(_of_plan(plan))


def _of_plan(plan: Plan) -> Iterable[tuple[str, str]]:
    yield "accepted", "yes" if plan["accepted"] else "no"
    for refusal in plan["refusals"]:
        yield "refused", f"{refusal['code']}: {refusal['detail']}" + _place(refusal.get("pointer"))
    if plan["accepted"]:
        pins = (plan["resolved"]["base"], *plan["resolved"]["experts"])
        yield from (("input", f"{pin['repo']}@{pin['commit']}") for pin in pins)
        yield "tensors", f"{plan['tensors']} with {plan['parameters']:,} parameters, {', '.join(plan['dtypes'])}"
        yield "download", size(plan["bytes_to_download"])
        yield "output", size(plan["output_bytes"])
        yield "memory", f"{size(plan['peak_memory_bytes'])} at the peak, about"
        yield "disk", size(plan["disk_bytes"])
    yield from (("warning", warning) for warning in plan["warnings"])


def _place(pointer: str | None) -> str:
    return f" (at {pointer})" if pointer else ""


def show_events(events: Sequence[Event]) -> None:
    """What happened, oldest first."""
    table(
        ("time", "stage", "event", "what"),
        [(each["at"][11:19], each["stage"] or "", each["type"], escape(_words(each["data"]))) for each in events],
    )


def _words(data: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in data.items() if not isinstance(value, dict | list))


def show_methods(methods: Sequence[Method]) -> None:
    """The catalogue."""
    table(
        ("method", "experts", "what it does"),
        [(each["name"], _experts(each), escape((each["description"] or "").partition("\n")[0])) for each in methods],
    )


def show_method(one: Method) -> None:
    """One method's parameters, as its JSON Schema describes them."""
    out.print(escape(one["description"] or one["name"]), soft_wrap=True)
    properties = one["parameters"].get("properties", {})
    table(
        ("parameter", "default", "what it is"),
        [
            (name, escape(str(field.get("default", "-"))), escape(str(field.get("description", ""))))
            for name, field in properties.items() if name != "name"
        ],
    )  # fmt: skip


def _experts(one: Method) -> str:
    least, most = one["min_experts"], one["max_experts"]
    return str(least) if least == most else f"{least} to {most}" if most else f"{least} or more"


def show_deliveries(deliveries: Sequence[Delivery]) -> None:
    """What a webhook was told."""
    table(
        ("number", "event", "status", "attempts", "next"),
        [
            (str(each["number"]), each["type"], each["status"], str(len(each["attempts"])),
             (each["next_attempt_at"] or "")[:19])
            for each in deliveries
        ],
    )  # fmt: skip


def show_report(report: Mapping[str, Any]) -> None:
    """The verdict, what was restored by module type, what was measured, and the warnings."""
    out.print(escape(report["verdict"]), soft_wrap=True)
    modules = report.get("selection", {}).get("modules", ())
    if modules:
        table(
            ("module", "restored", "share of parameters"),
            [(one["module_type"], f"{one['selected']} of {one['scored']}", f"{one['share']:.1%}") for one in modules],
        )
    _show_measured(report.get("evaluation") or {})
    for warning in report.get("warnings", ()):
        out.print(f"warning: {escape(warning)}", soft_wrap=True)


def _show_measured(evaluation: Mapping[str, Any]) -> None:
    """Task by task, with intervals: of a merge, and of each model of an evaluation on its own."""
    if evaluation.get("tasks"):
        table(
            ("task", "metric", "base", "adapted", "result", "share"),
            [
                (one["task"], one["metric"], *(_estimate(one[key]) for key in ("base", "adapted", "merged", "share")))
                for one in evaluation["tasks"]
            ],
        )  # fmt: skip
    rows = [
        (f"{model['repo']}@{model['commit'][:12]}", one["task"], one["metric"], str(one["items"]),
         _estimate(one["value"]))
        for model in evaluation.get("models", ()) for one in model["tasks"]
    ]  # fmt: skip
    if rows:
        table(("model", "task", "metric", "items", "value"), rows)


def _estimate(one: Mapping[str, Any]) -> str:
    interval = "" if one["low"] is None else f" ({one['low']:.3f} to {one['high']:.3f})"
    return figure(one["value"]) + interval
