"""What recipes are made of: names of things on the Hub, labels, and the base class of every part."""

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from app.recipes.scalars import Whole


def _tidy(value: str) -> str:
    if any(bad in value for bad in ("..", "--", "//", "/.", "./")) or value.endswith((".git", ".lock", "/", ".")):
        raise ValueError("must not hold '..', '--' or '//', nor begin or end a part with '.'")
    return value


_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
RepoId = Annotated[str, StringConstraints(pattern=rf"^{_NAME}/{_NAME}$", max_length=96), AfterValidator(_tidy)]
Revision = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/+-]*$", max_length=200), AfterValidator(_tidy)
]


def _branch(value: str) -> str:
    """Names that a Hub takes for something else than a branch, so that publishing there could only fail."""
    if re.fullmatch(r"[0-9a-fA-F]{40}", value) or value == "HEAD" or value.startswith("refs/") or ".lock/" in value:
        raise ValueError("must be the name of a branch: not a commit, not 'HEAD', not under 'refs/'")
    return value


Branch = Annotated[Revision, AfterValidator(_branch)]
LabelName = Annotated[str, StringConstraints(min_length=1, max_length=64)]
LabelValue = Annotated[str, StringConstraints(max_length=512)]
Priority = Annotated[
    Whole,
    Field(
        ge=-10, le=10,
        description="jobs of a higher priority start first, whosever they are; 0 is usual",
    ),
]
QueueSeconds = Annotated[
    float | None,
    Field(
        gt=0, le=31_536_000, strict=True,
        description="fail with `queue_expired` if the job has not started after so long",
    ),
]
RuntimeSeconds = Annotated[
    float | None,
    Field(
        gt=0, le=31_536_000, strict=True,
        description="fail with `runtime_exceeded` if the job has not ended so long after its first start",
    ),
]


class Part(BaseModel):
    """Immutable; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelRef(Part):
    """A checkpoint on the Hub."""

    repo: RepoId
    revision: Revision = "main"
