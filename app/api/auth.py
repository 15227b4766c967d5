"""Who calls: the bearer key, its limits, and the scope that a route needs."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Annotated

from fastapi import Depends, Header, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import SecretStr

from app.api.limits import refuse
from app.api.services import Services, Uses
from app.errors import Code, SpearError
from app.jobs.callers import Caller
from app.jobs.sealed import CallerToken

CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_TOKEN = re.compile(r"[\x21-\x7e]{1,512}")
_bearer = HTTPBearer(auto_error=False, description="An API key: `spear_...`")


Sent = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


async def _caller(request: Request, services: Services, sent: HTTPAuthorizationCredentials | None) -> Caller:
    caller = await services.callers(sent.credentials) if sent else None
    if caller is None:
        await run_in_threadpool(_count_stranger, request, services)
        raise SpearError(Code.UNAUTHENTICATED, "no API key was sent" if sent is None else "this API key is not valid")
    request.state.caller = caller
    request.state.windows = [] if caller.unlimited else await run_in_threadpool(
        services.limits.spend, caller, changing=request.method in CHANGING
    )
    refuse(request.state.windows)
    return caller


def _count_stranger(request: Request, services: Services) -> None:
    request.state.windows = services.limits.spend_stranger(request.client.host if request.client else "")
    refuse(request.state.windows)


def _with_scope(scope: str) -> Callable[..., Awaitable[Caller]]:
    # one dependency, not a chain of them: each costs a poll a twentieth of its time
    async def check(request: Request, services: Uses, sent: Sent) -> Caller:
        caller = await _caller(request, services, sent)
        caller.require(scope)
        return caller

    return check


def _with_token(
    services: Uses, caller: Annotated[Caller, Depends(_with_scope("merges:write"))],
    x_hub_token: Annotated[
        SecretStr | None,
        Header(
            description="a Hub token of the caller's own, for this job alone, in the place of the service's",
            json_schema_extra={"pattern": f"^{_TOKEN.pattern}$"},  # not pydantic's: it would tell the token
        ),
    ] = None,
) -> Caller:
    """The caller with the Hub token that came along, if one did; grants hold all the same."""
    if x_hub_token is None:
        return caller
    text = x_hub_token.get_secret_value()
    if not _TOKEN.fullmatch(text):
        raise SpearError(Code.INVALID_REQUEST, "X-Hub-Token takes 1 to 512 visible ASCII characters")
    return replace(caller, hub_token=CallerToken(text, services.seal))


Reader = Annotated[Caller, Depends(_with_scope("merges:read"))]
Writer = Annotated[Caller, Depends(_with_token)]
ADMINS_ONLY = Depends(_with_scope("admin"))
