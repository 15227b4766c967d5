"""Errors by what a caller can do about them; `code` tells which one it is of the service's closed list."""

import json
from typing import Any

import httpx2


class ApiError(Exception):
    """The service answered with a problem; `problem` is its JSON (RFC 9457)."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        super().__init__(problem.get("detail") or f"HTTP {status}")
        self.status = status
        self.problem = problem

    @property
    def code(self) -> str:
        return str(self.problem.get("code", "unknown"))

    @property
    def request_id(self) -> str | None:
        return self.problem.get("request_id")

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later without a change."""
        return bool(self.problem.get("retryable", False))

    @property
    def errors(self) -> list[dict[str, str]]:
        """The bad fields, as `pointer` and `detail`."""
        return list(self.problem.get("errors", []))


class InvalidError(ApiError):
    """The request is at fault: 400, 413, 415, 422."""


class UnauthenticatedError(ApiError):
    """No valid API key: 401."""


class DeniedError(ApiError):
    """The key may not do this: 403."""


class NotFoundError(ApiError):
    """There is no such thing, or it belongs to somebody else: 404."""


class ConflictError(ApiError):
    """The state of the job or of the target forbids it: 409."""


class LimitedError(ApiError):
    """Too many requests, or a quota is used up: 429."""


class UnavailableError(ApiError):
    """The service or the Hub behind it is away: 5xx."""


_KINDS: dict[int, type[ApiError]] = {
    400: InvalidError, 401: UnauthenticatedError, 403: DeniedError, 404: NotFoundError, 409: ConflictError,
    413: InvalidError, 415: InvalidError, 422: InvalidError, 429: LimitedError,
}  # fmt: skip


def failure(answer: httpx2.Response) -> ApiError:
    """The error that an answer tells of."""
    kind = UnavailableError if answer.status_code >= 500 else _KINDS.get(answer.status_code, ApiError)
    return kind(answer.status_code, _problem(answer))


def _problem(answer: httpx2.Response) -> dict[str, Any]:
    try:
        body = answer.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        return {"detail": answer.text[:500]}
    return body if isinstance(body, dict) else {"detail": str(body)[:500]}
