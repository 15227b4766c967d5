"""A job's page, and the parts of it that are asked for one at a time."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response

from app.api.services import Services, Uses
from app.api.views import JobView
from app.dashboard import headline as head
from app.dashboard.access import PageRoute, Viewer
from app.dashboard.charts import METRICS, change_chart, gantt_chart, heatmap_chart, strengths_chart, tradeoff_chart
from app.dashboard.evaluation import evaluation_of, models_of, notes_of, points_of, tasks_of, tradeoff_of
from app.dashboard.faults import fault_of
from app.dashboard.finding import document_of, find_job, last_events, score_rows, view_of
from app.dashboard.provenance import commands_of, inputs_of, recipe_text, retry_command
from app.dashboard.rendering import page, part
from app.dashboard.searching import prediction_of, search_of
from app.dashboard.study import study_of
from app.dashboard.tensors import COLUMNS, read_view, table
from app.jobs.callers import Caller
from app.jobs.states import TERMINAL
from app.jobs.tables import Job

router = APIRouter(include_in_schema=False, route_class=PageRoute)
Metric = Literal["score", "relative_change", "snr", "swci", "svdr"]
PageNumber = Annotated[int, Query(ge=1, le=100_000)]


@router.get("/jobs/{job_id}")
def get_job(
    *, request: Request, job_id: str, services: Uses, caller: Viewer, metric: Metric = "score", sort: str = "",
    order: str = "", only: str = "", number: PageNumber = 1,
) -> Response:  # fmt: skip
    """All of one job: how it ended, what was restored and why, what that did, and where it comes from."""
    job = find_job(services, caller, job_id)
    report = document_of(services, caller, job, "report")
    rows = score_rows(report, None if report else document_of(services, caller, job, "scores"))
    view = view_of(services, job)
    values = _run_values(services, caller, job, view, report=report) | _result_values(view, report)
    values |= _heatmap_values(job_id, report, metric)
    values |= _table_values(job_id, rows, sort=sort, order=order, only=only, number=number)
    return page(request, "job.html", **values)


@router.get("/jobs/{job_id}/live")
def get_live(*, request: Request, job_id: str, services: Uses, caller: Viewer, version: int = -1) -> Response:
    """What changes while the job runs; 204 where nothing has, and the whole page anew when it has ended."""
    job = find_job(services, caller, job_id)
    if job.version == version:
        return Response(status_code=204)
    if job.status in TERMINAL:
        return Response(status_code=204, headers={"HX-Refresh": "true"})
    values = _run_values(services, caller, job, view_of(services, job), report=None)
    return page(request, "_live.html", **values | {"oob": True})


@router.get("/jobs/{job_id}/heatmap")
def get_heatmap(
    *, request: Request, job_id: str, services: Uses, caller: Viewer, metric: Metric = "score"
) -> Response:
    """The heatmap of one score."""
    report = document_of(services, caller, find_job(services, caller, job_id), "report")
    values = _heatmap_values(job_id, report, metric)
    return part(request, "_heatmap.html", title=f"Heatmap of {METRICS[metric]}", job_id=job_id, **values)


@router.get("/jobs/{job_id}/tensors")
def get_tensors(
    *, request: Request, job_id: str, services: Uses, caller: Viewer, sort: str = "", order: str = "", only: str = "",
    number: PageNumber = 1,
) -> Response:  # fmt: skip
    """One page of the table of tensors."""
    job = find_job(services, caller, job_id)
    report = document_of(services, caller, job, "report")
    rows = score_rows(report, None if report else document_of(services, caller, job, "scores"))
    values = _table_values(job_id, rows, sort=sort, order=order, only=only, number=number)
    return part(request, "_tensors.html", title="Tensors", **values)


def _run_values(
    services: Services, caller: Caller, job: Job, view: JobView, *, report: dict[str, Any] | None
) -> dict[str, Any]:  # fmt: skip
    now = datetime.now(UTC)
    stages = [stage.model_dump() for stage in view.stages]
    return {
        "job": view, "job_id": job.id, "version": job.version, "head": head, "now": now, "oob": False,
        "running": view.status not in TERMINAL, "facts": head.headline(view, report, now=now),
        "fault": fault_of(view.error.code) if view.error else None, "retry": retry_command(view),
        "gantt": gantt_chart(stages, now=now), "stages": stages,
        "events": last_events(services, caller, job), "event_count": job.event_seq,
        "request_id": job.request_id,
    }  # fmt: skip


def _result_values(view: JobView, report: dict[str, Any] | None) -> dict[str, Any]:
    evaluation = evaluation_of(report)
    tradeoff, search = tradeoff_of(evaluation), search_of(evaluation)
    return {
        "report": report, "evaluation": evaluation, "tasks": tasks_of(evaluation), "points": points_of(evaluation),
        "notes": notes_of(evaluation), "study": study_of(report), "models": models_of(evaluation),
        "has_controls": any(p.get("kind") == "control" for p in evaluation.get("points") or ()),
        "tradeoff": tradeoff_chart(tradeoff) if tradeoff else "", "search": search,
        "strengths": strengths_chart(search.groups) if search else "", "prediction": prediction_of(evaluation),
        "change": change_chart(report) if report and report.get("distribution") else "",
        "inputs": inputs_of(view, report), "commands": commands_of(view), "recipe": recipe_text(view),
    }  # fmt: skip


def _heatmap_values(job_id: str, report: dict[str, Any] | None, metric: Metric) -> dict[str, Any]:
    data = (report or {}).get("heatmap") or {}
    known = {name: words for name, words in METRICS.items() if name in data}
    shown = metric if metric in known else "score"

    def link(module: str, layer: int) -> str:
        return f"/jobs/{job_id}/cell?" + urlencode({"module": module, "layer": layer})

    return {
        "heatmap": heatmap_chart(report, metric=shown, link=link) if report and shown in known else "",
        "metric": shown, "metrics": known, "outside": data.get("outside") or (),
    }  # fmt: skip


def _table_values(
    job_id: str, rows: list[dict[str, Any]], *, sort: str, order: str, only: str, number: int
) -> dict[str, Any]:
    view = read_view(sort=sort, order=order, only=only, page=number)
    return {"table": table(rows, view), "columns": COLUMNS, "job_id": job_id}
