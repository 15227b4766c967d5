"""Who looks at the pages: a session's cookie or a bearer key, with the same tenancy, scope and limits as the API."""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any
from urllib.parse import urlencode, urlsplit

from fastapi import Depends, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute

from app.api.limits import refuse
from app.api.services import Services, Uses
from app.dashboard.rendering import HEADERS, page
from app.dashboard.sessions import COOKIE, Sessions
from app.errors import Code, SpearError
from app.jobs.callers import Caller
from app.jobs.database import DatabaseAway


class PageRoute(APIRoute):
    """A route whose failures are pages too; where nobody is signed in, it leads to the sign-in and back."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except SpearError as error:
                return failure(request, error)
            except RequestValidationError as error:
                first = error.errors()[0]
                message = f"{first['loc'][-1]}: {first['msg']}"
                return failure(request, SpearError(Code.INVALID_REQUEST, message))
            except DatabaseAway:
                return failure(request, SpearError(Code.NOT_READY, "the database does not answer"))

        return answer


def failure(request: Request, error: SpearError) -> Response:
    """The page of an error."""
    request.state.code = error.code  # for the audit
    if error.code == Code.UNAUTHENTICATED and request.method == "GET":
        return _to_sign_in(request)
    wait = {"Retry-After": str(error.names["retry_after"])} if "retry_after" in error.names else {}
    return page(
        request, "error.html", status=error.kind.status, headers=wait, kind=error.kind, error=error,
        request_id=request.state.request_id,
    )  # fmt: skip


async def _viewer(request: Request, services: Uses) -> Caller:
    """Raises `SpearError(unauthenticated)`, and what the API raises of scopes and limits."""
    return await run_in_threadpool(_enter, request, services)


def _enter(request: Request, services: Services) -> Caller:
    caller = _by_key(request, services) or _by_session(request, services)
    if caller is None:
        raise SpearError(Code.UNAUTHENTICATED, "nobody is signed in")
    request.state.caller = caller
    request.state.windows = services.limits.spend(caller, changing=request.method == "POST")
    refuse(request.state.windows)
    caller.require("merges:read")
    return caller


def _by_key(request: Request, services: Services) -> Caller | None:
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer":
        return None
    found = services.keys.find(token.strip())
    if found is None:
        count_stranger(request, services)
    return found


def _by_session(request: Request, services: Services) -> Caller | None:
    made: Sessions = request.app.state.sessions
    session = made.read(request.cookies.get(COOKIE))
    caller = services.keys.caller(session.key_id) if session else None
    if session and caller:
        request.state.session = session
        request.state.sign_out = made.form_token(session.name)
    return caller


def count_stranger(request: Request, services: Services) -> None:
    """Raises `SpearError(rate_limited)` where too many wrong keys came from one address."""
    request.state.windows = services.limits.spend_stranger(request.client.host if request.client else "")
    refuse(request.state.windows)


def _to_sign_in(request: Request) -> Response:
    is_part = request.headers.get("hx-request") == "true"
    here = urlsplit(request.headers.get("hx-current-url", "/") if is_part else str(request.url))
    wanted = here.path + (f"?{here.query}" if here.query else "")
    where = "/sign-in" + ("" if wanted == "/" else "?" + urlencode({"next": wanted}))
    if is_part:  # the whole page that is open goes
        return Response(status_code=401, headers=HEADERS | {"HX-Redirect": where})
    return RedirectResponse(where, 303, HEADERS)




Viewer = Annotated[Caller, Depends(_viewer)]
