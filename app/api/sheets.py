"""What the models of a job answered to one task, item by item."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel

from app.api.auth import Reader
from app.api.services import Uses
from app.errors import Code, SpearError
from app.jobs.sheets import JobSheets
from app.jobs.states import Kind

_NAMES = {Kind.MERGE: "merge", Kind.EVALUATION: "evaluation", Kind.STUDY: "study"}
TaskLabel = Annotated[str, Query(min_length=1, max_length=200, description="a task's name, as the report gives it")]


class AnswersView(BaseModel):
    """One model's answers. Of a loss, `values` are sums of nats and `weights` the tokens that they are over."""

    values: list[float]
    weights: list[float] | None = None


class SheetView(BaseModel):
    """The answers of all models to one task, in the task's order.

    `items` are the first 16 hexadecimal digits of each item's SHA-256; of a score, 1 is right and 0 wrong.
    """

    task: str
    kind: Literal["loss", "score"]
    metric: str
    unit: str
    items: list[str]
    models: dict[str, AnswersView]


def add_sheet_route(router: APIRouter, kind: Kind) -> None:
    """`GET /{job_id}/sheets?task=` for jobs of this kind that have evaluated."""

    @router.get("/{job_id}/sheets", response_model=SheetView, operation_id=f"get_{_NAMES[kind]}_sheets")
    def get_sheets(*, job_id: str, task: TaskLabel, services: Uses, caller: Reader) -> SheetView:
        """The answer sheets of one task: by model (their repositories, and `result`), item by item."""
        services.store.get(caller, job_id, kind=kind)
        sheets = JobSheets(services.database)
        found = sheets.find(job_id, task)
        if found is None:
            known = ", ".join(sheets.tasks(job_id) or ()) or "none yet"
            message = f"job {job_id} has no answer sheets of {task}; it has: {known}"
            raise SpearError(Code.NOT_FOUND, message, job=job_id, task=task)
        return SheetView(task=task, **found)
