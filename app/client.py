"""The Python client: what `spear` on the command line is built on. Needs no torch."""

import json
import secrets
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx2

_TERMINAL = frozenset({"succeeded", "failed", "cancelled"})
_RETRIED = frozenset({429, 502, 503, 504})
_ATTEMPTS = 5
_WAIT_SECONDS = 15


class ApiError(Exception):
    """The service answered with a problem; `problem` is its JSON (RFC 9457)."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        super().__init__(problem.get("detail") or f"HTTP {status}")
        self.status = status
        self.problem = problem

    @property
    def code(self) -> str:
        return str(self.problem.get("code", "unknown"))


class Client:
    """Talks to one service. Jobs are dictionaries, as the HTTP contract describes them."""

    def __init__(self, url: str, api_key: str, *, timeout_seconds: float = 60) -> None:
        self._http = httpx2.Client(
            base_url=url, headers={"Authorization": f"Bearer {api_key}"}, timeout=timeout_seconds, trust_env=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def submit(self, recipe: dict[str, Any], *, idempotency_key: str | None = None) -> dict[str, Any]:
        """Submit a merge. The same Idempotency-Key goes with every repetition, so one call makes one job."""
        key = idempotency_key or secrets.token_hex(16)
        return self._json("POST", "/merges", json=recipe, headers={"Idempotency-Key": key})

    def score(self, request: dict[str, Any], *, idempotency_key: str | None = None) -> dict[str, Any]:
        """Score a pair without merging it: `base`, one of `experts`, `method`, `labels`."""
        key = idempotency_key or secrets.token_hex(16)
        return self._json("POST", "/scores", json=request, headers={"Idempotency-Key": key})

    def plan(self, recipe: dict[str, Any]) -> dict[str, Any]:
        """What a merge would do; nothing is queued."""
        return self._json("POST", "/merges/plan", json=recipe)

    def get(self, job_id: str) -> dict[str, Any]:
        return self._json("GET", _path(job_id))

    def cancel(self, job_id: str) -> dict[str, Any]:
        return self._json("POST", f"{_path(job_id)}/cancel")

    def retry(self, job_id: str) -> dict[str, Any]:
        """A failed or cancelled job's recipe as a new job."""
        return self._json("POST", f"{_path(job_id)}/retry", headers={"Idempotency-Key": secrets.token_hex(16)})

    def scores(self, job_id: str) -> list[dict[str, Any]]:
        """The scores of every scored tensor."""
        data: list[dict[str, Any]] = self._json("GET", f"{_path(job_id)}/scores")["data"]
        return data

    def report(self, job_id: str) -> dict[str, Any]:
        return self._json("GET", f"{_path(job_id)}/report")

    def methods(self) -> list[dict[str, Any]]:
        """The catalogue of merge methods."""
        data: list[dict[str, Any]] = self._json("GET", "/methods")["data"]
        return data

    def merges(self, *, limit: int | None = None, **filters: Any) -> Iterator[dict[str, Any]]:
        """Jobs, newest first, page by page; filters are `status`, `target`, `label`."""
        yield from self._pages("/merges", limit=limit, params=filters)

    def events(self, job_id: str) -> Iterator[dict[str, Any]]:
        """What has happened to a job so far, oldest first."""
        yield from self._pages(f"{_path(job_id)}/events", limit=None, params={"limit": 1000})

    def watch(self, job_id: str) -> Iterator[dict[str, Any]]:
        """The job now and after each change, until it has ended."""
        tag = ""
        while True:
            headers = {"Prefer": f"wait={_WAIT_SECONDS}"} | ({"If-None-Match": tag} if tag else {})
            answer = self._call("GET", _path(job_id), headers=headers if tag else {})
            if answer.status_code != 304:
                tag = answer.headers["etag"]
                job: dict[str, Any] = answer.json()
                yield job
                if job["status"] in _TERMINAL:
                    return

    def wait(self, job_id: str) -> dict[str, Any]:
        """The job once it has ended."""
        *_, last = self.watch(job_id)
        return last

    def _pages(self, path: str, *, limit: int | None, params: dict[str, Any]) -> Iterator[dict[str, Any]]:
        left, cursor = limit, None
        while left is None or left > 0:
            size = {} if left is None else {"limit": min(left, 100)}
            page = self._json("GET", path, params=params | size | ({"cursor": cursor} if cursor else {}))
            yield from page["data"]
            left = None if left is None else left - len(page["data"])
            cursor = page["next_cursor"]
            if not cursor or not page["data"]:
                return

    def _json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        body: dict[str, Any] = self._call(method, path, **options).json()
        return body

    def _call(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """One call, repeated while the service is away: every call of ours may be repeated."""
        for attempt in range(_ATTEMPTS):
            last = attempt == _ATTEMPTS - 1
            try:
                answer = self._http.request(method, path, **options)
            except httpx2.TransportError:
                if last:
                    raise
                time.sleep(0.5 * 2**attempt)
                continue
            if answer.status_code in _RETRIED and not last:
                asked = answer.headers.get("retry-after", "")
                time.sleep(min(30.0, float(asked) if asked.isdigit() else 0.5 * 2**attempt))
                continue
            if answer.is_error:
                raise ApiError(answer.status_code, _problem(answer))
            return answer
        raise AssertionError


def _path(job_id: str) -> str:
    """Where a job is found, by the kind that its id tells."""
    return f"/{'scores' if job_id.startswith('scr_') else 'merges'}/{quote(job_id, safe='')}"


def _problem(answer: httpx2.Response) -> dict[str, Any]:
    try:
        body = answer.json()
    except json.JSONDecodeError:
        return {"detail": answer.text[:500]}
    return body if isinstance(body, dict) else {"detail": str(body)[:500]}
