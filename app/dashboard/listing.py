"""The list of jobs, and two of them side by side."""

from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request, Response

from app.api.services import Services, Uses
from app.dashboard import headline as head
from app.dashboard.access import PageRoute, Viewer
from app.dashboard.charts import heatmap_chart
from app.dashboard.comparison import fact_pairs, overlap, recipe_differences, task_pairs
from app.dashboard.evaluation import evaluation_of
from app.dashboard.finding import Filters, JobList, document_of, find_job, list_jobs, score_rows, view_of
from app.dashboard.rendering import page
from app.jobs.callers import Caller
from app.jobs.states import ACTIVE, Status
from app.jobs.store import PREFIXES

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/")
def get_jobs(
    *, request: Request, services: Uses, caller: Viewer, status: str = "", kind: str = "", target: str = "",
    label: str = "", cursor: str = "",
) -> Response:  # fmt: skip
    """The jobs that the caller may see, newest first."""
    filters = Filters(status=status, kind=kind, target=target, label=label)
    found = list_jobs(services, caller, filters, cursor=cursor)
    values = _list_values(request, found, filters)
    return page(request, "jobs.html", **values, statuses=list(Status), kinds=list(PREFIXES))


@router.get("/jobs")
def get_rows(
    *, request: Request, services: Uses, caller: Viewer, status: str = "", kind: str = "", target: str = "",
    label: str = "", cursor: str = "", seen: str = "",
) -> Response:  # fmt: skip
    """The rows of the list alone, for the list that is open; 204 where nothing has changed since `seen`."""
    filters = Filters(status=status, kind=kind, target=target, label=label)
    found = list_jobs(services, caller, filters, cursor=cursor)
    if seen and seen == _state(found):
        return Response(status_code=204)
    return page(request, "_rows.html", **_list_values(request, found, filters))


@router.get("/compare")
def get_compare(*, request: Request, services: Uses, caller: Viewer, a: str = "", b: str = "") -> Response:
    """Two jobs side by side; a form where they are not both named."""
    if not (a and b):
        return page(request, "compare.html", a=a, b=b, pair=None)
    return page(request, "compare.html", a=a, b=b, pair=_pair(services, caller, a.strip(), b.strip()))


def _list_values(request: Request, found: JobList, filters: Filters) -> dict[str, Any]:
    now = datetime.now(UTC)
    query = request.query_params
    kept = {name: query[name] for name in ("status", "kind", "target", "label", "cursor") if query.get(name)}
    return {
        "newest": {name: value for name, value in kept.items() if name != "cursor"},
        "found": found, "filters": filters, "head": head, "now": now, "query": kept, "state": _state(found),
        "narrowed": bool(set(kept) - {"cursor"}), "live": any(job.status in ACTIVE for job in found.jobs),
    }  # fmt: skip


def _state(found: JobList) -> str:
    """What tells whether the list has changed: the newest change among its jobs, and which they are."""
    newest = max((job.updated_at for job in found.jobs), default=None)
    first = found.jobs[0].id if found.jobs else "none"
    return f"{first}.{len(found.jobs)}.{newest.timestamp():.6f}" if newest else first


def _pair(services: Services, caller: Caller, *names: str) -> dict[str, Any]:
    jobs = [find_job(services, caller, name) for name in names]
    views = [view_of(services, job) for job in jobs]
    reports = [document_of(services, caller, job, "report") for job in jobs]
    rows = [score_rows(report, None) for report in reports]
    now = datetime.now(UTC)
    facts = [head.headline(view, report, now=now) for view, report in zip(views, reports, strict=True)]
    return {
        "jobs": views, "head": head, "facts": fact_pairs(*facts),
        "recipe": recipe_differences(views[0].recipe, views[1].recipe),
        "tasks": task_pairs(evaluation_of(reports[0]), evaluation_of(reports[1])),
        "overlap": overlap(*rows) if all(rows) else None,
        "heatmaps": [heatmap_chart(report) if report and report.get("heatmap") else "" for report in reports],
        "verdicts": [(report or {}).get("verdict") or "" for report in reports],
    }  # fmt: skip


