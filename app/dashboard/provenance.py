"""Where a result comes from, and how to make it again. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.api.views import JobView
from app.jobs.states import ACTIVE, Status


@dataclass(frozen=True, kw_only=True)
class Input:
    """One repository at one commit."""

    role: str
    repo: str
    revision: str
    commit: str
    license: str


@dataclass(frozen=True, kw_only=True)
class Command:
    """Something to copy into a shell."""

    name: str
    text: str


def inputs_of(job: JobView, report: Mapping[str, Any] | None) -> list[Input]:
    """The report's inputs, or what was resolved where there is no report yet."""
    told = (report or {}).get("inputs")
    if told:
        return [_input(one, role=one["role"]) for one in told]
    base, experts = job.resolved.get("base"), job.resolved.get("experts") or ()
    found = ([_input(base, role="base")] if base else []) + [_input(one, role="expert") for one in experts]
    return [one for one in found if one.repo]


def _input(one: Mapping[str, Any], *, role: str) -> Input:
    return Input(
        role=role, repo=one.get("repo") or "", revision=one.get("revision") or "", commit=one.get("commit") or "",
        license=one.get("license") or "",
    )  # fmt: skip


def commands_of(job: JobView) -> list[Command]:
    """What can be done with the job from a shell: these pages change nothing themselves."""
    found = []
    if job.result and job.result.repo and job.result.commit:
        place = f"{job.result.repo}@{job.result.commit}"
        found.append(Command(name="make it again and compare", text=f"spear reproduce {place}"))
    if job.status in ACTIVE:
        found.append(Command(name="cancel it", text=_curl(job.links["cancel"], options="-X POST ")))
    if job.status in (Status.FAILED, Status.CANCELLED):
        found.append(Command(name="retry it", text=retry_command(job)))
    return [*found, Command(name="the job as JSON", text=_curl(job.links["self"]))]


def retry_command(job: JobView) -> str:
    """The same recipe again, as a new job."""
    return _curl(job.links["retry"], options="-X POST ")


def recipe_text(job: JobView) -> str:
    """The recipe to save and to submit again, without what was left at null."""
    return json.dumps(_said(job.recipe), indent=2, ensure_ascii=False)


def _said(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _said(one) for name, one in value.items() if one is not None}
    return [_said(one) for one in value] if isinstance(value, list) else value


def _curl(path: str, *, options: str = "") -> str:
    return f'curl -sS {options}"$SPEAR_API_URL{path}" -H "Authorization: Bearer $SPEAR_API_KEY"'
