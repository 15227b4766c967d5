"""The first lines of a job's page: what it is about, and how it ended. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.api.views import JobView
from app.dashboard.charts.gantt import duration
from app.dashboard.charts.scales import percent
from app.dashboard.evaluation import Estimate, evaluation_of, share_of
from app.dashboard.rendering import many, size
from app.jobs.states import TERMINAL

Report = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One figure of the headline."""

    name: str
    value: str
    note: str = ""
    tone: str = ""
    """`good` or `bad` where it is one of both"""


def parents_of(job: JobView) -> str:
    """From what the job starts: its base and experts, or the models it looks at, by their names alone."""
    experts = [one.get("repo", "") for name in ("experts", "models") for one in job.recipe.get(name) or ()]
    base = (job.recipe.get("base") or {}).get("repo")
    return " + ".join(dict.fromkeys(repo for repo in (base, *experts) if repo)) or job.kind


def title_of(job: JobView) -> str:
    """What the job makes, or what it looks at where it publishes nothing."""
    target = job.recipe.get("target") or {}
    models = " + ".join(one["repo"] for one in job.recipe.get("models") or ())
    return str(target.get("repo") or models or parents_of(job))


def method_of(job: JobView) -> str:
    """The method's name, where the job has one."""
    return str((job.recipe.get("method") or {}).get("name") or "-")


def summary_of(job: JobView) -> str:
    """What is told of the job in one cell of a list."""
    if job.error and job.status == "failed":
        return job.error.code.replace("_", " ")
    if job.status == "running":
        done = f" {job.progress.percent:.0f} %" if job.progress else ""
        return f"{job.stage or 'starting'}{done}"
    if job.result and job.result.scored:
        return f"{job.result.selected} of {job.result.scored} restored"
    return job.stage or ""


def seconds_of(job: JobView, *, now: datetime) -> float | None:
    """How long it ran, or has run; None before its start."""
    return ((job.ended_at or now) - job.started_at).total_seconds() if job.started_at else None


def headline(job: JobView, report: Report | None, *, now: datetime) -> list[Fact]:
    """The figures that are known."""
    evaluation = evaluation_of(report)
    return [*_gate(evaluation), *_shares(evaluation), *_restored(report), *_run(job, report, now=now)]


def _gate(evaluation: Mapping[str, Any]) -> list[Fact]:
    gate = evaluation.get("gate")
    if not gate:
        return []
    passed = gate.get("passed")
    note = "; ".join(gate.get("reasons") or ()) or _asked(gate)
    return [Fact(name="gate", value="passed" if passed else "not passed", note=note, tone="good" if passed else "bad")]


def _asked(gate: Mapping[str, Any]) -> str:
    asked = (("retention", gate.get("min_retention")), ("gain kept", gate.get("min_gain_kept")))
    return ", ".join(f"{name} at least {percent(least)}" for name, least in asked if least is not None)


def _shares(evaluation: Mapping[str, Any]) -> list[Fact]:
    """None of several models, which stand side by side in a table of their own."""
    if len(evaluation.get("models") or ()) > 1:
        return []
    shown = (("retention", "retention", "of general ability, against the base"),
             ("gain kept", "gain_kept", "of the domain gain, against the adapted model"))  # fmt: skip
    found = ((name, share_of(evaluation, field), note) for name, field, note in shown)
    return [
        Fact(name=name, value=percent(share["value"]), note=f"{note}{_interval(share)}")
        for name, share, note in found if share
    ]  # fmt: skip


def _interval(share: Estimate) -> str:
    low, high = share.get("low"), share.get("high")
    return "" if low is None or high is None else f" ({percent(low)} to {percent(high)})"


def _restored(report: Report | None) -> list[Fact]:
    selection = (report or {}).get("selection") or {}
    if not selection.get("scored"):
        return []
    shares = selection.get("shares") or {}
    whole, scored = shares.get("share"), {one["module_type"] for one in selection.get("modules") or ()}
    others = sum(one["tensors"] for kind, one in (shares.get("modules") or {}).items() if kind not in scored)
    parameters = f"{many(shares.get('parameters') or selection.get('parameters'))} parameters"
    if others:
        parameters = f"and {others} others, {parameters}"
    note = f"{parameters}, {percent(whole)} of the model" if whole is not None else parameters
    return [Fact(name="restored", value=f"{selection['selected']} of {selection['scored']} tensors", note=note)]


def _run(job: JobView, report: Report | None, *, now: datetime) -> list[Fact]:
    facts = []
    seconds = seconds_of(job, now=now)
    if seconds is not None:
        attempts = f"attempt {job.attempt} of at most {job.max_attempts}" if job.attempt > 1 else ""
        name = "took" if job.status in TERMINAL else "runs for"
        facts.append(Fact(name=name, value=duration(seconds), note=attempts))
    peak = ((report or {}).get("costs") or {}).get("peak_rss_bytes")
    return [*facts, Fact(name="peak memory", value=size(peak))] if peak else facts
