"""API keys, for administrators. A key's text is in the one answer that makes it, and nowhere else."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from app.api.auth import ADMINS_ONLY
from app.api.cursors import Cursors
from app.api.moments import Moment
from app.api.problems import RESPONSES
from app.api.services import Services, Uses
from app.errors import Code, SpearError
from app.hub.credentials import is_known
from app.jobs.keys import Allowance
from app.jobs.tables import ApiKey
from app.recipes.scalars import Whole

router = APIRouter(prefix="/keys", tags=["keys"], responses=RESPONSES, dependencies=[ADMINS_ONLY])

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Grant = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9._-]{1,96})?$")]
Count = Annotated[Whole, Field(ge=0, le=2**31 - 1)]


class NewKey(BaseModel):
    """What a new key may. A limit that is null is that of the settings; 0 is no limit."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Name
    owner: Name | None = Field(None, description="whose jobs these are; the name, if not given")
    scopes: list[Literal["merges:read", "merges:write", "admin"]] = Field(min_length=1, max_length=3)
    reads: list[Grant] = Field([], max_length=100, description="namespaces or repos that may be read")
    writes: list[Grant] = Field([], max_length=100, description="namespaces or repos that may be written")
    unlimited: bool = False
    expires_at: Moment | None = Field(None, description="with a time zone; it must lie in the future")
    credential: Name | None = Field(None, description="the Hub credential that its jobs act with")
    requests_per_minute: Annotated[Whole, Field(ge=1, le=2**31 - 1)] | None = None
    max_active: Count | None = None
    max_running: Count | None = None
    bytes_per_day: Annotated[Whole, Field(ge=0, le=2**62)] | None = None


class Rotation(BaseModel):
    """How long the old key stays valid beside the new one."""

    model_config = ConfigDict(extra="forbid", strict=True)

    overlap_seconds: float = Field(86_400, ge=0, le=31_536_000)


class KeyView(BaseModel):
    """A key, without its text."""

    id: str
    name: str
    owner: str
    prefix: str
    scopes: list[str]
    reads: list[str]
    writes: list[str]
    unlimited: bool
    credential: str | None
    requests_per_minute: int | None
    max_active: int | None
    max_running: int | None
    bytes_per_day: int | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class MadeKey(KeyView):
    """A key with its text, this once."""

    token: str


class KeyPage(BaseModel):
    """Keys, newest first."""

    data: list[KeyView]
    next_cursor: str | None


@router.get("", response_model=KeyPage, operation_id="list_keys")
def get_keys(
    *, services: Uses, limit: Annotated[int, Query(ge=1, le=100)] = 20, cursor: str | None = None
) -> KeyPage:
    """All keys, newest first, those that ended too."""
    cursors = Cursors(services.settings.secret, kind="keys")
    keys = services.keys.page(limit=limit + 1, before=str(cursors.read(cursor)) if cursor else None)
    page = keys[:limit]
    return KeyPage(
        data=[_view(key) for key in page], next_cursor=cursors.make(page[-1].id) if len(keys) > limit else None
    )


@router.post("", status_code=201, response_model=MadeKey, operation_id="create_key")
def post_key(*, new: NewKey, response: Response, services: Uses) -> MadeKey:
    """A new key. Its text is in this answer only."""
    _check(services, new)
    allowance = Allowance(**{name: getattr(new, name) for name in Allowance.__dataclass_fields__})
    row, token = services.keys.add(
        name=new.name, owner=new.owner, scopes=new.scopes, reads=new.reads, writes=new.writes,
        unlimited=new.unlimited, expires_at=new.expires_at, allowance=allowance,
    )
    return _made(response, row, token)


@router.get("/{key_id}", response_model=KeyView, operation_id="get_key")
def get_key(*, key_id: str, services: Uses) -> KeyView:
    """One key, without its text."""
    return _view(services.keys.get(key_id))


@router.post("/{key_id}/rotate", status_code=201, response_model=MadeKey, operation_id="rotate_key")
def post_rotate(
    *, key_id: str, response: Response, services: Uses, rotation: Rotation | None = None
) -> MadeKey:
    """A new key that may the same. The old one ends after the overlap, a day if nothing else is said."""
    overlap = timedelta(seconds=(rotation or Rotation()).overlap_seconds)
    row, token = services.keys.rotate(key_id, overlap=overlap)
    return _made(response, row, token)


@router.post("/{key_id}/revoke", response_model=KeyView, operation_id="revoke_key")
def post_revoke(*, key_id: str, services: Uses) -> KeyView:
    """End a key now; again changes nothing."""
    return _view(services.keys.revoke_one(key_id))


def _check(services: Services, new: NewKey) -> None:
    if new.credential is not None and not is_known(services.settings, new.credential):
        message = f"there is no Hub credential {new.credential!r}"
        raise SpearError(Code.INVALID_REQUEST, message, pointer="/credential")
    if new.expires_at is not None and (new.expires_at.tzinfo is None or new.expires_at <= datetime.now(UTC)):
        message = "expires_at must have a time zone and lie in the future"
        raise SpearError(Code.INVALID_REQUEST, message, pointer="/expires_at")


def _made(response: Response, row: ApiKey, token: str) -> MadeKey:
    response.headers["Location"] = f"/keys/{row.id}"
    response.headers["Cache-Control"] = "no-store"
    return MadeKey(**_fields(row), token=token)


def _view(row: ApiKey) -> KeyView:
    return KeyView(**_fields(row))


def _fields(row: ApiKey) -> dict[str, Any]:
    return {name: getattr(row, name) for name in KeyView.model_fields}
