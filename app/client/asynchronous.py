"""The same client for asyncio."""

import asyncio
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any, Self, cast

import httpx2

from app.client.calls import TERMINAL, Call, connection, job_path, look, page, pause, submit
from app.client.synchronous import accepted
from app.client.types import Delivery, Event, Job, Method, Plan, Score


class AsyncClient:
    """`Client`, awaited: the same calls, repetitions and errors."""

    def __init__(self, url: str, api_key: str, *, timeout_seconds: float = 60) -> None:
        self._http = httpx2.AsyncClient(**connection(url, api_key, timeout_seconds=timeout_seconds))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def submit(
        self, recipe: dict[str, Any], *, idempotency_key: str | None = None, hub_token: str | None = None
    ) -> Job:
        """Submit a merge. The same Idempotency-Key goes with every repetition, so one call makes one job.

        With a `hub_token` of your own, the job acts on the Hub as that, not as the service.
        """
        return cast("Job", await self._json(submit("/merges", recipe, key=idempotency_key, hub_token=hub_token)))

    async def score(
        self, request: dict[str, Any], *, idempotency_key: str | None = None, hub_token: str | None = None
    ) -> Job:
        """Score a pair without merging it: `base`, one of `experts`, `method`, `labels`."""
        return cast("Job", await self._json(submit("/scores", request, key=idempotency_key, hub_token=hub_token)))

    async def evaluate(
        self, request: dict[str, Any], *, idempotency_key: str | None = None, hub_token: str | None = None
    ) -> Job:
        """Measure models that there are: `models`, `evaluation`, and `base` with `experts` for shares of them."""
        return cast("Job", await self._json(submit("/evaluations", request, key=idempotency_key, hub_token=hub_token)))

    async def study(
        self, study: dict[str, Any], *, idempotency_key: str | None = None, hub_token: str | None = None
    ) -> Job:
        """Merge a base and its experts in many ways and measure every merge; only what `publish` names is published."""
        return cast("Job", await self._json(submit("/studies", study, key=idempotency_key, hub_token=hub_token)))

    async def plan(self, recipe: dict[str, Any]) -> Plan:
        """What a merge would do; nothing is queued."""
        return cast("Plan", await self._json(Call(method="POST", path="/merges/plan", json=recipe)))

    async def get(self, job_id: str) -> Job:
        return cast("Job", await self._json(Call(path=job_path(job_id))))

    async def cancel(self, job_id: str) -> Job:
        return cast("Job", await self._json(Call(method="POST", path=f"{job_path(job_id)}/cancel")))

    async def retry(self, job_id: str, *, idempotency_key: str | None = None, hub_token: str | None = None) -> Job:
        """A failed or cancelled job's recipe as a new job."""
        path = f"{job_path(job_id)}/retry"
        return cast("Job", await self._json(submit(path, None, key=idempotency_key, hub_token=hub_token)))

    async def scores(self, job_id: str) -> list[Score]:
        """The scores of every scored tensor."""
        return cast("list[Score]", (await self._json(Call(path=f"{job_path(job_id)}/scores")))["data"])

    async def spectrum(self, job_id: str, tensor: str) -> dict[str, Any]:
        """The singular values of one scored tensor, base and adapted, at up to 256 ranks, with the noise edge."""
        return await self._json(Call(path=f"{job_path(job_id)}/spectra", params={"tensor": tensor}))

    async def report(self, job_id: str) -> dict[str, Any]:
        return await self._json(Call(path=f"{job_path(job_id)}/report"))

    async def export(self, job_id: str, *, format: str = "csv") -> bytes:  # noqa: A002  (the API's word)
        """What a study found, as a file: `csv`, `parquet` or `html`."""
        found: bytes = (await self._call(Call(path=f"{job_path(job_id)}/export", params={"format": format}))).content
        return found

    async def deliveries(self, job_id: str) -> list[Delivery]:
        """What the job's webhook was told."""
        return cast("list[Delivery]", (await self._json(Call(path=f"{job_path(job_id)}/deliveries")))["data"])

    async def methods(self) -> list[Method]:
        """The catalogue of merge methods."""
        return cast("list[Method]", (await self._json(Call(path="/methods")))["data"])

    def jobs(self, kind: str, *, limit: int | None = None, **filters: Any) -> AsyncIterator[Job]:
        """As `merges`, of another kind: `scores`, `evaluations`, `studies`."""
        return cast("AsyncIterator[Job]", self._pages(f"/{kind}", limit=limit, params=filters))

    def merges(self, *, limit: int | None = None, **filters: Any) -> AsyncIterator[Job]:
        """Jobs, newest first, page by page; filters are `status`, `target`, `label`."""
        return cast("AsyncIterator[Job]", self._pages("/merges", limit=limit, params=filters))

    def events(self, job_id: str) -> AsyncIterator[Event]:
        """What has happened to a job so far, oldest first."""
        path = f"{job_path(job_id)}/events"
        return cast("AsyncIterator[Event]", self._pages(path, limit=None, params={"limit": 1000}))

    async def watch(self, job_id: str) -> AsyncIterator[Job]:
        """The job now and after each change, until it has ended."""
        tag = ""
        while True:
            answer = await self._call(look(job_id, tag=tag))
            if answer.status_code != httpx2.codes.NOT_MODIFIED:
                tag = answer.headers["etag"]
                job: Job = answer.json()
                yield job
                if job["status"] in TERMINAL:
                    return

    async def wait(self, job_id: str, *, progress: Callable[[Job], None] = lambda _: None) -> Job:
        """The job once it has ended; `progress` is told of it now and after each change."""
        async for job in self.watch(job_id):
            progress(job)
        return job

    async def _pages(self, path: str, *, limit: int | None, params: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        left, cursor = limit, None
        while left is None or left > 0:
            found = await self._json(page(path, left=left, params=params, cursor=cursor))
            for entry in found["data"]:
                yield entry
            left = None if left is None else left - len(found["data"])
            cursor = found["next_cursor"]
            if not cursor or not found["data"]:
                return

    async def _json(self, call: Call) -> dict[str, Any]:
        body: dict[str, Any] = (await self._call(call)).json()
        return body

    async def _call(self, call: Call) -> httpx2.Response:
        attempt = 0
        while True:
            met = await self._once(call)
            seconds = pause(met, attempt=attempt)
            if seconds is None:
                return accepted(met)
            await asyncio.sleep(seconds)
            attempt += 1

    async def _once(self, call: Call) -> httpx2.Response | httpx2.TransportError:
        try:
            return await self._http.request(**call.options())
        except httpx2.TransportError as error:
            return error

