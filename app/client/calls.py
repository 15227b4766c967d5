"""What both clients say, and when they say it again. No I/O."""

import random
import secrets
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx2

TERMINAL = frozenset({"succeeded", "failed", "cancelled"})
WAIT_SECONDS = 15
_RETRIED = frozenset({429, 502, 503, 504})
_ATTEMPTS = 5
_LONGEST_PAUSE = 30.0
_FOLDERS = {"scr_": "scores", "evl_": "evaluations", "std_": "studies"}


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request. Every call of ours may be repeated: those that make a job carry an Idempotency-Key."""

    method: str = "GET"
    path: str
    params: dict[str, Any] = field(default_factory=dict)
    json: Any = None
    headers: dict[str, str] = field(default_factory=dict, repr=False)  # a Hub token may be among them

    def options(self) -> dict[str, Any]:
        """For the library's `request`."""
        body = {} if self.json is None else {"json": self.json}
        return {"method": self.method, "url": self.path, "params": self.params, "headers": self.headers} | body


def pause(met: httpx2.Response | httpx2.TransportError, *, attempt: int) -> float | None:
    """The seconds to wait before the same call is sent again; None if it is not. `attempt` counts from 0.

    The service's `Retry-After` goes before our own doubling; a quota that frees up later than in half a minute is the
    caller's to wait for.
    """
    if attempt + 1 >= _ATTEMPTS:
        return None
    doubled: float = 0.5 * 2**attempt * random.uniform(1.0, 1.25)  # noqa: S311  (spreads load only)
    if isinstance(met, httpx2.TransportError):
        return doubled
    if met.status_code not in _RETRIED:
        return None
    asked: str = met.headers.get("retry-after", "")
    seconds = float(asked) if asked.isascii() and asked.isdigit() else doubled
    return seconds if seconds <= _LONGEST_PAUSE else None


def submit(path: str, body: dict[str, Any] | None, *, key: str | None, hub_token: str | None = None) -> Call:
    """A POST that makes a job; the same key goes with every repetition, so one call makes one job."""
    headers = {"Idempotency-Key": key or secrets.token_hex(16)} | ({"X-Hub-Token": hub_token} if hub_token else {})
    return Call(method="POST", path=path, json=body, headers=headers)


def job_path(job_id: str) -> str:
    """Where a job is found, by the kind that its id tells."""
    return f"/{_FOLDERS.get(job_id[:4], 'merges')}/{quote(job_id, safe='')}"


def look(job_id: str, *, tag: str) -> Call:
    """A job; held until its next change where its last ETag is known."""
    headers = {"Prefer": f"wait={WAIT_SECONDS}", "If-None-Match": tag} if tag else {}
    return Call(path=job_path(job_id), headers=headers)


def page(path: str, *, left: int | None, params: dict[str, Any], cursor: str | None) -> Call:
    """One page of a list, of which `left` entries are wanted."""
    size = {} if left is None else {"limit": min(left, 100)}
    return Call(path=path, params=params | size | ({"cursor": cursor} if cursor else {}))


def connection(url: str, api_key: str, *, timeout_seconds: float) -> dict[str, Any]:
    """What both of the library's clients are made with; the environment (proxies) is not read."""
    headers = {"Authorization": f"Bearer {api_key}"}
    return {"base_url": url, "headers": headers, "timeout": timeout_seconds, "trust_env": False}
