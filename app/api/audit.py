"""The audit, for administrators: who called for a change, and what became of it."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel

from app.api.auth import ADMINS_ONLY
from app.api.cursors import Cursors
from app.api.moments import Moment
from app.api.problems import RESPONSES
from app.api.services import Uses

router = APIRouter(prefix="/audit", tags=["audit"], responses=RESPONSES, dependencies=[ADMINS_ONLY])


class DeedView(BaseModel):
    """One call. `key_id` and `owner` are null where no valid key came; `code` is the problem's, if it was refused."""

    id: int
    at: datetime
    key_id: str | None
    owner: str | None
    action: str
    object: str
    status: int
    code: str | None
    request_id: str | None
    address: str | None


class AuditPage(BaseModel):
    """Calls, newest first."""

    data: list[DeedView]
    next_cursor: str | None


@router.get("", response_model=AuditPage, operation_id="list_audit")
def get_audit(
    *, services: Uses, key_id: str | None = None, owner: str | None = None,
    since: Moment | None = None, limit: Annotated[int, Query(ge=1, le=100)] = 50, cursor: str | None = None,
) -> AuditPage:
    """Every call that was to change something, the refused ones too."""
    cursors = Cursors(services.settings.secret, kind="audit")
    found = services.audit.find(
        limit=limit + 1, before=int(cursors.read(cursor)) if cursor else None, key_id=key_id, owner=owner, since=since
    )
    page = found[:limit]
    views = [DeedView.model_validate(row, from_attributes=True) for row in page]
    return AuditPage(data=views, next_cursor=cursors.make(page[-1].id) if len(found) > limit else None)
