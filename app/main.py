"""The application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from app.api import (
    audit,
    deliveries,
    evaluations,
    health,
    keys,
    merges,
    methods,
    openapi,
    problems,
    scores,
    studies,
    workers,
)
from app.api.middleware import RequestContext
from app.api.services import build_services
from app.api.tracing import Traced
from app.dashboard import pages
from app.settings import Settings, load
from app.tracing import tracing


def create_app(settings: Settings | None = None) -> FastAPI:
    """The API over one database, broker and Hub."""
    settings = settings or load()
    services = build_services(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        tracing.send_to(settings.otlp_endpoint, service="spear-api")
        yield
        services.database.close()
        services.limits.close()
        app.state.sessions.close()

    app = FastAPI(
        title="spear-merge", version=version("spear-merge"), lifespan=lifespan,
        description="Repairs and merges language models after fine-tuning, and publishes them exactly once.",
    )
    app.state.services = services
    app.add_middleware(RequestContext, max_body_bytes=settings.max_body_bytes, audit=services.audit)
    app.add_middleware(Traced)
    problems.install(app)
    nouns = (merges, scores, evaluations, studies, deliveries, keys, audit, workers, methods, health)
    for noun in nouns:
        app.include_router(noun.router)
    pages.install(app, settings)
    openapi.install(app)
    return app
