"""The sign-in page: an API key goes in, a session comes out."""

import re
import secrets
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from app.api.limits import refuse
from app.api.services import Services, Uses
from app.dashboard.access import PageRoute, Viewer, count_stranger
from app.dashboard.rendering import HEADERS, page
from app.dashboard.sessions import COOKIE, FORM_COOKIE, FORM_SECONDS, SECONDS, Sessions
from app.errors import Code, SpearError
from app.jobs.callers import Caller

router = APIRouter(include_in_schema=False, route_class=PageRoute)
_KEY = re.compile(r"[\x21-\x7e]{1,512}")
_INSIDE = re.compile(r"/(?![/\\])[\x21-\x5b\x5d-\x7e]{0,2000}")


@router.get("/sign-in")
def get_sign_in(*, request: Request, next: str = "/") -> Response:  # noqa: A002  (the query's name)
    """The form; it is bound to a cookie, so that no other site can sign anybody in."""
    return _form(request, wanted=_inside(next))


@router.get("/sign-in/known")
def get_known(*, request: Request, services: Uses) -> dict[str, bool]:
    """Whether this browser is signed in: who follows a link from elsewhere comes without the cookie at first."""
    session = _sessions(request).read(request.cookies.get(COOKIE))
    return {"known": session is not None and services.keys.is_valid(session.key_id)}


@router.post("/sign-in")
def post_sign_in(
    *, request: Request, services: Uses, key: Annotated[str, Form()] = "", token: Annotated[str, Form()] = "",
    next: Annotated[str, Form()] = "/",  # noqa: A002  (the field's name)
) -> Response:  # fmt: skip
    """Begin a session for a key that is valid and may read."""
    wanted, sessions = _inside(next), _sessions(request)
    if not sessions.is_form_token(token, request.cookies.get(FORM_COOKIE)) or not _same_site(request):
        return _form(request, wanted=wanted, status=403, wrong="This form was open for too long. Please try again.")
    caller = _caller(request, services, key.strip())
    if caller is None:
        return _form(request, wanted=wanted, status=401, wrong="This API key is not valid.")
    caller.require("merges:read")
    answer = RedirectResponse(wanted, 303, HEADERS)
    _set(answer, request, COOKIE, sessions.begin(caller.key_id), seconds=SECONDS)
    answer.delete_cookie(FORM_COOKIE, path="/sign-in")
    return answer


@router.post("/sign-out")
def post_sign_out(*, request: Request, _: Viewer, token: Annotated[str, Form()] = "") -> Response:
    """End the session, for every copy of its cookie."""
    session = getattr(request.state, "session", None)
    if session is None or not _sessions(request).is_form_token(token, session.name) or not _same_site(request):
        raise SpearError(Code.INVALID_REQUEST, "this form was open for too long, or is not ours")
    _sessions(request).end(session)
    answer = RedirectResponse("/sign-in", 303, HEADERS)
    answer.delete_cookie(COOKIE, path="/")
    return answer


def _form(request: Request, *, wanted: str, status: int = 200, wrong: str | None = None) -> Response:
    bound_to = request.cookies.get(FORM_COOKIE) or secrets.token_hex(16)
    token = _sessions(request).form_token(bound_to)
    answer = page(request, "sign_in.html", status=status, token=token, wanted=wanted, wrong=wrong)
    _set(answer, request, FORM_COOKIE, bound_to, seconds=FORM_SECONDS, path="/sign-in")
    return answer


def _caller(request: Request, services: Services, key: str) -> Caller | None:
    found = services.keys.find(key) if _KEY.fullmatch(key) else None
    if found is None:
        count_stranger(request, services)
        return None
    request.state.caller = found  # for the audit
    request.state.windows = services.limits.spend(found, changing=True)
    refuse(request.state.windows)
    return found


def _set(answer: Response, request: Request, name: str, value: str, *, seconds: int, path: str = "/") -> None:
    answer.set_cookie(
        name, value, max_age=seconds, path=path, httponly=True, samesite="strict",
        secure=request.url.scheme == "https",
    )  # fmt: skip


def _same_site(request: Request) -> bool:
    """Browsers say where a request comes from; those that say nothing are held by the token alone."""
    return request.headers.get("sec-fetch-site", "same-origin") in {"same-origin", "none"}


def _inside(wanted: str) -> str:
    """Where to go after signing in: a path of this site, whatever the form says."""
    return wanted if _INSIDE.fullmatch(wanted) else "/"


def _sessions(request: Request) -> Sessions:
    sessions = request.app.state.sessions
    assert isinstance(sessions, Sessions)
    return sessions
