"""Adds the pages to the application."""

from fastapi import APIRouter, FastAPI, Request, Response

from app.dashboard import fleet, job, listing, panel, signing_in
from app.dashboard.assets import FOR_EVER, find_asset
from app.dashboard.sessions import Ended, Sessions
from app.errors import Code, SpearError
from app.settings import Settings

router = APIRouter(include_in_schema=False)


def install(app: FastAPI, settings: Settings) -> None:
    """Routes for people beside those for programs; none of them stands in the API's description."""
    app.state.sessions = Sessions(settings.secret, ended=Ended(settings.redis_url))
    for routes in (router, signing_in.router, listing.router, job.router, panel.router, fleet.router):
        app.include_router(routes)


@router.get("/static/{name}")
async def get_asset(*, request: Request, name: str) -> Response:
    """A static file; its name changes with its content, so it may be kept for ever."""
    found = find_asset(name)
    if found is None:
        raise SpearError(Code.NOT_FOUND, f"there is no file {name}")
    headers = {"Cache-Control": FOR_EVER, "Vary": "Accept-Encoding", "X-Content-Type-Options": "nosniff"}
    if "gzip" not in request.headers.get("accept-encoding", ""):
        return Response(found.plain, headers=headers, media_type=found.media_type)
    return Response(found.packed, headers=headers | {"Content-Encoding": "gzip"}, media_type=found.media_type)
