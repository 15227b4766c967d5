"""What a job's webhook was told, and telling it again."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel

from app.api.auth import Reader, Writer
from app.api.problems import RESPONSES
from app.api.services import Services, Uses
from app.jobs.states import Kind
from app.jobs.webhook_tables import Delivery, DeliveryAttempt
from app.jobs.webhooks import Deliveries
from app.webhooks.signing import secrets_of

router = APIRouter(prefix="/webhooks", tags=["webhooks"], responses=RESPONSES)
Number = Annotated[int, Path(ge=1, le=2**31 - 1)]


class AttemptView(BaseModel):
    """One attempt: the receiver's status, or why there is none."""

    at: datetime
    milliseconds: int
    status_code: int | None
    error: str | None


class DeliveryView(BaseModel):
    """One word to the receiver; `id` is its `webhook-id`."""

    number: int
    id: str
    type: str
    url: str
    status: str
    created_at: datetime
    ended_at: datetime | None
    next_attempt_at: datetime | None
    attempts: list[AttemptView]


class DeliveryPage(BaseModel):
    """A job's deliveries, oldest first."""

    data: list[DeliveryView]


class Secrets(BaseModel):
    """`whsec_...`, the newest first."""

    data: list[str]


def add_delivery_routes(router: APIRouter, kind: Kind) -> None:
    """The routes of jobs that have a webhook."""

    @router.get("/{job_id}/deliveries", response_model=DeliveryPage, operation_id=f"list_{kind}_deliveries")
    def get_deliveries(*, job_id: str, services: Uses, caller: Reader) -> DeliveryPage:
        """What the job's webhook was told, with every attempt."""
        services.store.get(caller, job_id, kind=kind)
        return _page(services, job_id)

    @router.post(
        "/{job_id}/deliveries/{number}/redeliver", status_code=202, response_model=DeliveryPage,
        operation_id=f"redeliver_{kind}",
    )
    def post_redeliver(*, job_id: str, number: Number, services: Uses, caller: Writer) -> DeliveryPage:
        """Send one again, now, with the same `webhook-id`."""
        services.store.get(caller, job_id, kind=kind)
        _outbox(services).again(job_id, number)
        return _page(services, job_id)


@router.get("/secrets", operation_id="list_webhook_secrets")
def get_secrets(*, services: Uses, caller: Writer) -> Secrets:
    """The secrets that your receivers check signatures with; several while they are being rotated."""
    return Secrets(data=secrets_of(caller.owner, settings=services.settings))


def _outbox(services: Services) -> Deliveries:
    return Deliveries(services.database, ladder=())


def _page(services: Services, job_id: str) -> DeliveryPage:
    return DeliveryPage(data=[_view(*found) for found in _outbox(services).of(job_id)])


def _view(delivery: Delivery, attempts: list[DeliveryAttempt]) -> DeliveryView:
    return DeliveryView(
        number=delivery.number, id=delivery.id, type=delivery.payload["type"], url=delivery.url,
        status=delivery.status, created_at=delivery.created_at, ended_at=delivery.ended_at,
        next_attempt_at=delivery.due_at if delivery.status == "pending" else None,
        attempts=[AttemptView.model_validate(one, from_attributes=True) for one in attempts],
    )
