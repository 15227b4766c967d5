"""Jobs of every kind, as the pages need them; whose is whose is decided by the store, as for the API."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.api.cursors import Cursors
from app.api.services import Services
from app.api.views import EventView, JobView, view_event, view_job
from app.errors import Code, SpearError
from app.jobs.callers import Caller
from app.jobs.states import ACTIVE, Kind, Status
from app.jobs.store import PREFIXES
from app.jobs.tables import Job

PER_PAGE = 25
EVENTS = 100


@dataclass(frozen=True, kw_only=True)
class Filters:
    """What the list is narrowed by, as the form says it; empty: by nothing."""

    status: str = ""
    kind: str = ""
    target: str = ""
    label: str = ""

    @property
    def statuses(self) -> frozenset[Status]:
        """Those wanted; none is all. Raises `SpearError(invalid_request)`, like its siblings."""
        if self.status == "active":
            return ACTIVE
        if self.status and self.status not in list(Status):
            raise self._wrong("status")
        return frozenset({Status(self.status)} if self.status else ())

    @property
    def kinds(self) -> Sequence[Kind]:
        if self.kind and self.kind not in list(PREFIXES):
            raise self._wrong("kind")
        return [Kind(self.kind)] if self.kind else list(PREFIXES)

    @property
    def labels(self) -> dict[str, str]:
        name, colon, value = self.label.partition(":")
        if self.label and not colon:
            raise self._wrong("label", hint=": write name:value")
        return {name.strip(): value.strip()} if self.label else {}

    def _wrong(self, name: str, *, hint: str = "") -> SpearError:
        return SpearError(Code.INVALID_REQUEST, f"there is no {name} {getattr(self, name)!r}{hint}")


@dataclass(frozen=True, kw_only=True)
class JobList:
    """One page of jobs, newest first, and where the next begins."""

    jobs: Sequence[JobView]
    next_cursor: str | None


def list_jobs(services: Services, caller: Caller, filters: Filters, *, cursor: str) -> JobList:
    """Of every kind that is wanted the newest, by the index of each, then the newest of those."""
    signed = Cursors(services.settings.secret, kind="pages", filters=list(vars(filters).values()))
    before = str(signed.read(cursor)) if cursor else None
    found = [
        job
        for kind in filters.kinds
        for job in services.store.find(
            caller, limit=PER_PAGE + 1, kind=kind, before=f"{PREFIXES[kind]}_{before}" if before else None,
            status=sorted(filters.statuses), target=filters.target.strip() or None, labels=filters.labels,
        )
    ]  # fmt: skip
    found.sort(key=lambda job: _age(job.id), reverse=True)
    shown, more = found[:PER_PAGE], len(found) > PER_PAGE
    return JobList(jobs=_views(services, shown), next_cursor=signed.make(_age(shown[-1].id)) if more else None)


def find_job(services: Services, caller: Caller, job_id: str) -> Job:
    """One job of any kind. Raises `SpearError(not_found)`, also for another caller's."""
    glimpse = services.store.glimpse([job_id]).get(job_id)
    if glimpse is None:
        raise SpearError(Code.NOT_FOUND, f"there is no job {job_id}", job=job_id)
    return services.store.get(caller, job_id, kind=Kind(glimpse.kind))


def view_of(services: Services, job: Job) -> JobView:
    """The job as the API shows it."""
    return view_job(job, services.store.stages([job.id])[job.id])


def document_of(services: Services, caller: Caller, job: Job, name: str) -> dict[str, Any] | None:
    """A document of a job that `find_job` gave."""
    return services.store.document(caller, job.id, name, kind=Kind(job.kind))


def last_events(services: Services, caller: Caller, job: Job) -> list[EventView]:
    """The newest events, the oldest of them first."""
    after = max(0, job.event_seq - EVENTS)
    found = services.store.events(caller, job.id, after=after, limit=EVENTS, kind=Kind(job.kind))
    return [view_event(event) for event in found]


def score_rows(report: dict[str, Any] | None, scores: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The scored tensors: the report's, or while there is none what the scoring has left."""
    return list((report or {}).get("scores") or (scores or {}).get("data") or ())


def _age(job_id: str) -> str:
    """The part of an id that sorts by time, whatever the kind."""
    return job_id.partition("_")[2]


def _views(services: Services, jobs: Sequence[Job]) -> list[JobView]:
    stages = services.store.stages([job.id for job in jobs])
    return [view_job(job, stages[job.id]) for job in jobs]
