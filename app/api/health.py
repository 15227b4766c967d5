"""Whether the process lives, whether the service can work, and its figures."""

from fastapi import APIRouter, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel
from redis import Redis, RedisError

from app.api.metrics import render
from app.api.problems import RESPONSES
from app.api.services import Uses
from app.jobs.migrate import is_current

router = APIRouter(tags=["operations"], responses=RESPONSES)


@router.get("/healthz", operation_id="health")
async def get_health() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


class Readiness(BaseModel):
    """Whether the service can work, and what was looked at."""

    ready: bool
    checks: dict[str, bool]


@router.get(
    "/readyz", operation_id="readiness", response_model=Readiness,
    responses={503: {"model": Readiness, "description": "Not ready, and why"}},
)
def get_readiness(services: Uses) -> JSONResponse:
    """Database at the newest schema, broker reachable; 503 with the reasons where not."""
    database = services.database.answers()
    checks = {
        "database": database,
        "migrations": database and is_current(services.settings.database_url),
        "broker": _broker_answers(services.settings.redis_url),
    }
    ready = all(checks.values())
    return JSONResponse({"ready": ready, "checks": checks}, status_code=200 if ready else 503)


@router.get("/metrics", operation_id="metrics", response_class=PlainTextResponse)
async def get_metrics(services: Uses) -> Response:
    """Prometheus' text format."""
    return PlainTextResponse(await run_in_threadpool(render, services))


def _broker_answers(url: str) -> bool:
    try:
        with Redis.from_url(url, socket_connect_timeout=2, socket_timeout=2) as redis:
            return bool(redis.ping())
    except (RedisError, OSError):
        return False
