"""The workers, for administrators: who is there, what each does, since when."""

from datetime import datetime

from fastapi import APIRouter
from pydantic import BaseModel, Field

from app.api.auth import ADMINS_ONLY
from app.api.problems import RESPONSES
from app.api.services import Uses
from app.jobs.workers import State

router = APIRouter(prefix="/workers", tags=["operations"], responses=RESPONSES, dependencies=[ADMINS_ONLY])


class Presence(BaseModel):
    """A worker. `job_id` and what follows are null where it holds no job."""

    name: str
    host: str
    pid: int
    version: str
    device: str
    state: State = Field(description="busy, idle, lost (not heard of for a lease's time) or stopped (as it was told)")
    started_at: datetime
    seen_at: datetime
    job_id: str | None
    kind: str | None
    stage: str | None
    since: datetime | None = Field(description="when the running stage began")


class WorkerList(BaseModel):
    """All workers that were heard of in the last seven days, by name."""

    data: list[Presence]


@router.get("", response_model=WorkerList, operation_id="list_workers")
def get_workers(*, services: Uses) -> WorkerList:
    """Which workers live, and what each does."""
    found = services.workers.find()
    return WorkerList(data=[Presence.model_validate(one, from_attributes=True) for one in found])
