"""The client."""

import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self, cast

import httpx2

from app.client.calls import TERMINAL, Call, connection, job_path, look, page, pause, submit
from app.client.failures import failure
from app.client.types import Delivery, Event, Job, Method, Plan, Score


class Client:
    """Talks to one service. Jobs are dictionaries, as the HTTP contract describes them.

    Every call is repeated a few times where the service is away, asks for patience (429, 503) or the connection breaks.
    Raises `ApiError` (or one of its kinds) for a problem, `httpx2.TransportError` where no service answers.
    """

    def __init__(self, url: str, api_key: str, *, timeout_seconds: float = 60) -> None:
        self._http = httpx2.Client(**connection(url, api_key, timeout_seconds=timeout_seconds))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def submit(
        self, recipe: dict[str, Any], *, idempotency_key: str | None = None, hub_token: str | None = None
    ) -> Job:
        """Submit a merge. The same Idempotency-Key goes with every repetition, so one call makes one job.

        With a `hub_token` of your own, the job acts on the Hub as that, not as the service.
        """
        return cast("Job", self._json(submit("/merges", recipe, key=idempotency_key, hub_token=hub_token)))

    def score(
        self, request: dict[str, Any], *, idempotency_key: str | None = None, hub_token: str | None = None
    ) -> Job:
        """Score a pair without merging it: `base`, one of `experts`, `method`, `labels`."""
        return cast("Job", self._json(submit("/scores", request, key=idempotency_key, hub_token=hub_token)))

    def evaluate(
        self, request: dict[str, Any], *, idempotency_key: str | None = None, hub_token: str | None = None
    ) -> Job:
        """Measure models that there are: `models`, `evaluation`, and `base` with `experts` for shares of them."""
        return cast("Job", self._json(submit("/evaluations", request, key=idempotency_key, hub_token=hub_token)))

    def study(
        self, study: dict[str, Any], *, idempotency_key: str | None = None, hub_token: str | None = None
    ) -> Job:
        """Merge a base and its experts in many ways and measure every merge; only what `publish` names is published."""
        return cast("Job", self._json(submit("/studies", study, key=idempotency_key, hub_token=hub_token)))

    def plan(self, recipe: dict[str, Any]) -> Plan:
        """What a merge would do; nothing is queued."""
        return cast("Plan", self._json(Call(method="POST", path="/merges/plan", json=recipe)))

    def get(self, job_id: str) -> Job:
        return cast("Job", self._json(Call(path=job_path(job_id))))

    def cancel(self, job_id: str) -> Job:
        return cast("Job", self._json(Call(method="POST", path=f"{job_path(job_id)}/cancel")))

    def retry(self, job_id: str, *, idempotency_key: str | None = None, hub_token: str | None = None) -> Job:
        """A failed or cancelled job's recipe as a new job."""
        path = f"{job_path(job_id)}/retry"
        return cast("Job", self._json(submit(path, None, key=idempotency_key, hub_token=hub_token)))

    def scores(self, job_id: str) -> list[Score]:
        """The scores of every scored tensor."""
        return cast("list[Score]", self._json(Call(path=f"{job_path(job_id)}/scores"))["data"])

    def spectrum(self, job_id: str, tensor: str) -> dict[str, Any]:
        """The singular values of one scored tensor, base and adapted, at up to 256 ranks, with the noise edge."""
        return self._json(Call(path=f"{job_path(job_id)}/spectra", params={"tensor": tensor}))

    def report(self, job_id: str) -> dict[str, Any]:
        return self._json(Call(path=f"{job_path(job_id)}/report"))

    def export(self, job_id: str, *, format: str = "csv") -> bytes:  # noqa: A002  (the API's word)
        """What a study found, as a file: `csv`, `parquet` or `html`."""
        found: bytes = self._call(Call(path=f"{job_path(job_id)}/export", params={"format": format})).content
        return found

    def deliveries(self, job_id: str) -> list[Delivery]:
        """What the job's webhook was told."""
        return cast("list[Delivery]", self._json(Call(path=f"{job_path(job_id)}/deliveries"))["data"])

    def methods(self) -> list[Method]:
        """The catalogue of merge methods."""
        return cast("list[Method]", self._json(Call(path="/methods"))["data"])

    def jobs(self, kind: str, *, limit: int | None = None, **filters: Any) -> Iterator[Job]:
        """As `merges`, of another kind: `scores`, `evaluations`, `studies`."""
        return cast("Iterator[Job]", self._pages(f"/{kind}", limit=limit, params=filters))

    def merges(self, *, limit: int | None = None, **filters: Any) -> Iterator[Job]:
        """Jobs, newest first, page by page; filters are `status`, `target`, `label`."""
        return cast("Iterator[Job]", self._pages("/merges", limit=limit, params=filters))

    def events(self, job_id: str) -> Iterator[Event]:
        """What has happened to a job so far, oldest first."""
        path = f"{job_path(job_id)}/events"
        return cast("Iterator[Event]", self._pages(path, limit=None, params={"limit": 1000}))

    def watch(self, job_id: str) -> Iterator[Job]:
        """The job now and after each change, until it has ended."""
        tag = ""
        while True:
            answer = self._call(look(job_id, tag=tag))
            if answer.status_code != httpx2.codes.NOT_MODIFIED:
                tag = answer.headers["etag"]
                job: Job = answer.json()
                yield job
                if job["status"] in TERMINAL:
                    return

    def wait(self, job_id: str, *, progress: Callable[[Job], None] = lambda _: None) -> Job:
        """The job once it has ended; `progress` is told of it now and after each change."""
        for job in self.watch(job_id):
            progress(job)
        return job

    def _pages(self, path: str, *, limit: int | None, params: dict[str, Any]) -> Iterator[dict[str, Any]]:
        left, cursor = limit, None
        while left is None or left > 0:
            found = self._json(page(path, left=left, params=params, cursor=cursor))
            yield from found["data"]
            left = None if left is None else left - len(found["data"])
            cursor = found["next_cursor"]
            if not cursor or not found["data"]:
                return

    def _json(self, call: Call) -> dict[str, Any]:
        body: dict[str, Any] = self._call(call).json()
        return body

    def _call(self, call: Call) -> httpx2.Response:
        attempt = 0
        while True:
            met = self._once(call)
            seconds = pause(met, attempt=attempt)
            if seconds is None:
                return accepted(met)
            time.sleep(seconds)
            attempt += 1

    def _once(self, call: Call) -> httpx2.Response | httpx2.TransportError:
        try:
            return self._http.request(**call.options())
        except httpx2.TransportError as error:
            return error


def accepted(met: httpx2.Response | httpx2.TransportError) -> httpx2.Response:
    """The answer; raises what was met instead."""
    if isinstance(met, httpx2.TransportError):
        raise met
    if met.is_error:
        raise failure(met)
    return met
