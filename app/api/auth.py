"""Who calls: the bearer key, and the scope that a route needs."""

from collections.abc import Callable
from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from app.api.services import Uses
from app.errors import Code, SpearError
from app.jobs.keys import Caller

_bearer = HTTPBearer(auto_error=False, description="An API key: `spear_...`")


def _caller(services: Uses, sent: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> Caller:
    caller = services.keys.find(sent.credentials) if sent else None
    if caller is None:
        raise SpearError(Code.UNAUTHENTICATED, "no API key was sent" if sent is None else "this API key is not valid")
    return caller


def _with_scope(scope: str) -> Callable[[Caller], Caller]:
    def check(caller: Annotated[Caller, Depends(_caller)]) -> Caller:
        caller.require(scope)
        return caller

    return check


Reader = Annotated[Caller, Depends(_with_scope("merges:read"))]
Writer = Annotated[Caller, Depends(_with_scope("merges:write"))]
