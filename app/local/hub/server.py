"""The application: all routes, and how refusals are said."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from app.local.hub import commits, files, lfs, refs, repos
from app.local.hub.errors import HubError
from app.local.hub.store import HubStore
from app.local.hub.wire import RawPath


@dataclass(frozen=True, kw_only=True)
class Options:
    """Figures that a test sets low, to see more of the protocol with less data."""

    page_size: int = 1000
    multipart_bytes: int = 1_000_000_000
    part_bytes: int = 100_000_000


def create_hub(store: HubStore, *, options: Options) -> ASGIApp:
    """The Hub over a store, as an ASGI application."""
    app = Starlette(
        routes=[*repos.ROUTES, *files.ROUTES, *refs.ROUTES, *commits.ROUTES, *lfs.ROUTES],
        exception_handlers={HubError: _refuse, HTTPException: _refuse_route, ClientDisconnect: _gone},
        lifespan=_lifespan,
    )
    app.router.redirect_slashes = False
    app.state.store = store
    app.state.page_size = options.page_size
    app.state.multipart_bytes = options.multipart_bytes
    app.state.part_bytes = options.part_bytes
    return RawPath(app)


@contextlib.asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    await run_in_threadpool(app.state.store.sweep)
    yield


def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, HubError)
    return JSONResponse({"error": error.message}, error.status, headers=error.headers)


def _refuse_route(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)


def _gone(_: Request, __: Exception) -> Response:
    return Response(status_code=400)  # to nobody: the client left in the middle of its body
