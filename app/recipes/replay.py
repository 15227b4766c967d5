"""A merge that takes the decisions of one that was published, so that it can be made again exactly."""

from typing import Annotated

from pydantic import Field, StringConstraints

from app.recipes.parts import Part, RepoId

Commit = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]


class Replay(Part):
    """The published merge whose decisions are taken: what is restored, and how far. Nothing is scored then."""

    repo: RepoId
    revision: Commit = Field(description="the commit on which it was published, 40 hex digits")
