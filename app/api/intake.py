"""What every route that makes a job shares: the answer to a job that was taken, and to one that was there before."""

from typing import Annotated

from fastapi import Depends, Request, Response

from app.api.auth import Writer
from app.api.services import Services, Uses
from app.api.submit import IdempotencyKey, submit
from app.api.views import JobView, view_job
from app.jobs.tables import Job
from app.recipes import AnyRecipe

RETRY_AFTER = "2"


def accepted(services: Services, response: Response, job: Job) -> JobView:
    """The body and headers of a 202."""
    view = view_job(job, services.store.stages([job.id])[job.id])
    response.headers["Location"] = view.links["self"]
    response.headers["Retry-After"] = RETRY_AFTER
    return view


class Taking:
    """One request to make a job, by whoever may write."""

    def __init__(
        self, *, request: Request, response: Response, services: Uses, caller: Writer,
        idempotency_key: IdempotencyKey = None,
    ) -> None:
        self.services, self.caller = services, caller
        self._response, self._key, self._request_id = response, idempotency_key, request.state.request_id

    def take(self, recipe: AnyRecipe, *, retry_of: str | None = None) -> JobView:
        """The job of the recipe; `Idempotent-Replayed` says that the same key and body made it before."""
        job, replayed = submit(
            self.services, recipe, caller=self.caller, key=self._key, retry_of=retry_of, request_id=self._request_id
        )
        if replayed:
            self._response.headers["Idempotent-Replayed"] = "true"
        return accepted(self.services, self._response, job)


Intake = Annotated[Taking, Depends()]
