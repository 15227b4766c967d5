"""Jobs as JSON, by their version: whatever a caller sees of a job changes together with its version."""

from collections import OrderedDict
from dataclasses import dataclass

LIMIT = 1_000


@dataclass(frozen=True, kw_only=True)
class Body:
    """One job's JSON at one version."""

    version: int
    ended: bool
    content: bytes


class Bodies:
    """The bodies that were asked for last. Called from any thread: each step is a single one of the dictionary's."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Body] = OrderedDict()

    def get(self, job_id: str, version: int) -> Body | None:
        body = self._kept.get(job_id)
        return body if body and body.version == version else None

    def keep(self, job_id: str, body: Body) -> Body:
        self._kept[job_id] = body
        while len(self._kept) > LIMIT:
            self._kept.popitem(last=False)
        return body
