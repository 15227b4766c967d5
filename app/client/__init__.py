"""The Python client: what `spear` on the command line is built on. Needs neither torch nor the service's libraries."""

from app.client.asynchronous import AsyncClient
from app.client.failures import (
    ApiError,
    ConflictError,
    DeniedError,
    InvalidError,
    LimitedError,
    NotFoundError,
    UnauthenticatedError,
    UnavailableError,
)
from app.client.synchronous import Client
from app.client.types import Delivery, Event, Job, Method, Plan, Progress, Score, Stage

__all__ = [
    "ApiError",
    "AsyncClient",
    "Client",
    "ConflictError",
    "Delivery",
    "DeniedError",
    "Event",
    "InvalidError",
    "Job",
    "LimitedError",
    "Method",
    "NotFoundError",
    "Plan",
    "Progress",
    "Score",
    "Stage",
    "UnauthenticatedError",
    "UnavailableError",
]  # fmt: skip
