"""The singular spectra of one scored tensor, small enough to draw."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel

from app.api.auth import Reader
from app.api.services import Services, Uses
from app.errors import Code, SpearError
from app.jobs.spectra import DrawnSpectra
from app.jobs.states import Kind

_NAMES = {Kind.MERGE: "merge", Kind.SCORES: "scoring"}
Tensor = Annotated[str, Query(min_length=1, max_length=512, description="a row's name, as /scores gives it")]


class SpectrumView(BaseModel):
    """Singular values at `ranks` (1 is the largest), in the weights' unit; `edge` is where the base's noise ends."""

    tensor: str
    shape: list[int]
    count: int
    precision: str | None
    ranks: list[int]
    edge: float | None
    edge_adapted: float | None
    base: list[float]
    adapted: list[float]
    merged: list[float] | None


def add_spectrum_route(router: APIRouter, kind: Kind) -> None:
    """`GET /{job_id}/spectra?tensor=` for jobs of this kind that have scored."""

    @router.get("/{job_id}/spectra", response_model=SpectrumView, operation_id=f"get_{_NAMES[kind]}_spectrum")
    def get_spectrum(*, job_id: str, tensor: Tensor, services: Uses, caller: Reader) -> SpectrumView:
        """Singular values of base and adapted model for one scored tensor, with the noise edge.

        At most 256 ranks of each. `merged` is given for restored tensors that the recipe's `method.show` names.
        """
        services.store.get(caller, job_id, kind=kind)
        return _view(services, job_id=job_id, tensor=tensor)


def _view(services: Services, *, job_id: str, tensor: str) -> SpectrumView:
    found = DrawnSpectra(services.database).find(job_id, tensor)
    if found is None:
        raise SpearError(Code.NOT_FOUND, f"job {job_id} has no spectrum of {tensor}", job=job_id, tensor=tensor)
    return SpectrumView(tensor=tensor, **found)
