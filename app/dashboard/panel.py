"""What stands behind one cell of the heatmap, and the downloads of a job."""

import json
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from app.api.services import Services, Uses
from app.dashboard.access import PageRoute, Viewer
from app.dashboard.answers import task_sheet
from app.dashboard.charts import spectra_chart
from app.dashboard.finding import document_of, find_job, score_rows
from app.dashboard.rendering import packed, part
from app.dashboard.tensors import cell_rows, csv_text, whole
from app.errors import Code, SpearError
from app.jobs.callers import Caller
from app.jobs.spectra import DrawnSpectra
from app.jobs.tables import Job

router = APIRouter(include_in_schema=False, route_class=PageRoute)
Word = Annotated[str, Query(max_length=512)]
SHOWN = {
    "score": "score", "snr": "SNR", "swci": "SWCI", "svdr": "SVDR", "relative_change": "relative change",
    "effective_rank": "effective rank, base", "effective_rank_adapted": "effective rank, adapted",
    "delta_rank": "rank of the change", "delta_top_energy": "its energy in 64 directions", "noise_edge": "noise edge",
}  # fmt: skip
"""fields of a row that the panel tells, where they are there, in words"""


@router.get("/jobs/{job_id}/cell")
def get_cell(
    *, request: Request, job_id: str, services: Uses, caller: Viewer, module: Word = "", layer: int | None = None,
    tensor: Word = "",
) -> Response:  # fmt: skip
    """The tensors of one module and layer, or one tensor by its name: its scores and its singular spectra."""
    job = find_job(services, caller, job_id)
    rows = _rows(services, caller, job)
    cell = [row for row in rows if row.get("name") == tensor] if tensor else cell_rows(rows, module=module, layer=layer)
    if not cell:
        raise SpearError(Code.NOT_FOUND, f"job {job_id} has scored no tensor there", job=job_id)
    shown = whole(cell[0])
    spectrum = DrawnSpectra(services.database).find(job_id, shown["name"])
    return part(
        request, "_cell.html", title=str(shown["name"]), job_id=job_id, row=shown, cell=cell,
        values={words: shown[name] for name, words in SHOWN.items() if shown.get(name) is not None}, spectrum=spectrum,
        chart=spectra_chart(spectrum, name=shown["name"]) if spectrum else "",
    )  # fmt: skip


@router.get("/jobs/{job_id}/answers")
def get_answers(*, request: Request, job_id: str, services: Uses, caller: Viewer, task: Word = "") -> Response:
    """One task of the evaluation item by item, where the job has kept the answers."""
    job = find_job(services, caller, job_id)
    entry = ((document_of(services, caller, job, "sheets") or {}).get("tasks") or {}).get(task)
    if entry is None:
        raise SpearError(Code.NOT_FOUND, f"job {job_id} has no answers to {task!r}", job=job_id, task=task)
    sheet = task_sheet(entry, task, base=(job.recipe.get("base") or {}).get("repo"))
    return part(request, "_answers.html", title=task, job_id=job_id, sheet=sheet)


@router.get("/jobs/{job_id}/scores.csv")
def get_csv(*, request: Request, job_id: str, services: Uses, caller: Viewer) -> Response:
    """Every scored tensor with every field, for a spreadsheet."""
    text = csv_text(_rows(services, caller, find_job(services, caller, job_id)))
    return _download(request, text, f"{job_id}-scores.csv", "text/csv; charset=utf-8")


@router.get("/jobs/{job_id}/report.json")
def get_report(*, request: Request, job_id: str, services: Uses, caller: Viewer) -> Response:
    """The report, as the API gives it, for who is signed in here."""
    report = document_of(services, caller, find_job(services, caller, job_id), "report")
    if report is None:
        raise SpearError(Code.NOT_FOUND, f"job {job_id} has no report yet", job=job_id)
    return _download(request, json.dumps(report, indent=1), f"{job_id}-report.json", "application/json")


def _rows(services: Services, caller: Caller, job: Job) -> list[dict[str, Any]]:
    scores = document_of(services, caller, job, "scores")
    return score_rows(None if scores else document_of(services, caller, job, "report"), scores)


def _download(request: Request, text: str, name: str, media_type: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return packed(request, text.encode(), media_type, headers=headers)
