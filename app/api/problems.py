"""Every error as `application/problem+json` (RFC 9457) with a stable code."""

import re
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import Match

from app.errors import KINDS, Code, SpearError
from app.jobs.database import DatabaseAway
from app.recipes import pointer, reason

log = structlog.get_logger()

_BY_STATUS = {404: Code.NOT_FOUND, 405: Code.METHOD_NOT_ALLOWED, 413: Code.REQUEST_TOO_LARGE}
_JSON = re.compile(r"application/(?:[\w.-]+\+)?json")
_HEADERS = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": "5"}}


class FieldError(BaseModel):
    """One bad field of the body, or one bad parameter."""

    pointer: str
    detail: str


class Problem(BaseModel):
    """An error, as callers see it."""

    type: str
    title: str
    status: int
    detail: str
    code: Code
    request_id: str
    trace_id: str | None
    retryable: bool
    hint: str
    names: dict[str, Any]
    errors: list[FieldError]


RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": Problem, "content": {"application/problem+json": {}}},
    "5XX": {"model": Problem, "content": {"application/problem+json": {}}},
}


def install(app: FastAPI) -> None:
    """Answer every exception with a problem."""
    app.add_exception_handler(SpearError, _expected)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    for kind in DatabaseAway:
        app.add_exception_handler(kind, _database)
    app.add_exception_handler(Exception, _unexpected)


def problem(request: Request, error: SpearError) -> JSONResponse:
    """The answer for one error."""
    kind = error.kind
    request.state.code = error.code  # for the audit
    names = dict(error.names)
    headers = dict(_HEADERS.get(kind.status, {}))
    if "retry_after" in names:
        headers["Retry-After"] = str(names["retry_after"])
    errors = names.pop("errors", None)
    if errors is None:
        errors = [{"pointer": error.pointer, "detail": error.message}] if error.pointer else []
    body = Problem(
        type=f"{request.base_url}problems/{error.code}", title=kind.title, status=kind.status, detail=error.message,
        code=error.code, request_id=request.state.request_id,
        trace_id=getattr(request.state, "trace_id", None), retryable=kind.retryable, hint=kind.hint, names=names,
        errors=[FieldError(**e) for e in errors],
    )
    return JSONResponse(
        body.model_dump(mode="json"), kind.status, headers, media_type="application/problem+json"
    )


async def _expected(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, SpearError)
    return problem(request, error)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if error.body and any(e["loc"][0] == "body" for e in found) and not _JSON.fullmatch(kind):
        return problem(request, SpearError(Code.UNSUPPORTED_MEDIA_TYPE, f"the body is {kind[:100] or 'of no type'}"))
    if found[0]["type"] == "json_invalid":
        return problem(request, SpearError(Code.INVALID_REQUEST, f"the body is not JSON: {found[0]['ctx']['error']}"))
    code = Code.INVALID_RECIPE if all(e["loc"][0] == "body" for e in found) else Code.INVALID_REQUEST
    errors = [{"pointer": pointer(e["loc"][1:]), "detail": reason(e)} for e in found]
    first = errors[0]
    return problem(request, SpearError(code, f"{first['pointer'] or '/'}: {first['detail']}", errors=errors))


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = _BY_STATUS.get(error.status_code, Code.INVALID_REQUEST)
    answer = problem(request, SpearError(code, f"{request.method} {request.url.path}: {error.detail}"))
    answer.headers.update(error.headers or {})
    if error.status_code == 405:
        answer.headers["Allow"] = ", ".join(_allowed(request))
    return answer


def _allowed(request: Request) -> list[str]:
    """The methods of all routes with this path; the router itself tells those of one of them.

    Of a path that is described as it is (`/merges/plan`), those described; `/merges/{job_id}` matches it too.
    """
    described = request.app.openapi()["paths"].get(request.url.path)
    if described:
        return sorted(method.upper() for method in described)
    scopes = [dict(request.scope) | {"method": method} for method in ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")]
    return [
        str(scope["method"]) for scope in scopes
        if any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)
    ]


async def _database(request: Request, error: Exception) -> JSONResponse:
    log.warning("database.failed", error=type(error).__name__, request_id=request.state.request_id)
    return problem(request, SpearError(Code.NOT_READY, "the database does not answer"))


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    log.error("request.crashed", exc_info=error, request_id=request.state.request_id)
    answer = problem(request, SpearError(Code.INTERNAL_ERROR, "the service failed on this request; see its log"))
    answer.headers["X-Request-Id"] = request.state.request_id  # this answer goes out past the middleware
    return answer


def explain(code: str) -> dict[str, Any]:
    """What a problem type means, for `GET /problems/{code}`."""
    if code not in list(Code):
        raise SpearError(Code.NOT_FOUND, f"there is no problem type {code}")
    kind = KINDS[Code(code)]
    return {
        "code": code, "title": kind.title, "status": kind.status, "retryable": kind.retryable, "hint": kind.hint,
    }
