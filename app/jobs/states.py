"""The states of a job and the ways between them. Pure."""

from enum import StrEnum


class Status(StrEnum):
    """Closed: callers may match on it."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Kind(StrEnum):
    """What a job makes."""

    MERGE = "merge"
    SCORES = "scores"
    EVALUATION = "evaluation"
    STUDY = "study"


ACTIVE = frozenset({Status.QUEUED, Status.RUNNING, Status.CANCELLING})
TERMINAL = frozenset(Status) - ACTIVE
HELD = frozenset({Status.RUNNING, Status.CANCELLING})
"""the states in which a worker holds the lease"""

TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.QUEUED: frozenset({Status.RUNNING, Status.CANCELLED, Status.FAILED}),
    Status.RUNNING: frozenset({Status.QUEUED, Status.CANCELLING, Status.SUCCEEDED, Status.FAILED, Status.CANCELLED}),
    # a worker past the point of no return ends the job as its publish ends
    Status.CANCELLING: frozenset({Status.CANCELLED, Status.SUCCEEDED, Status.FAILED}),
    Status.SUCCEEDED: frozenset(),
    Status.FAILED: frozenset(),
    Status.CANCELLED: frozenset(),
}
