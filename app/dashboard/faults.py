"""Of a failed job: whose fault it was, and what to change. From the closed list of codes alone. Pure."""

from dataclasses import dataclass

from app.errors import KINDS, Code


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What a failure's page says beside the message."""

    title: str
    whose: str
    change: str
    hint: str
    retryable: bool


REQUEST = ("What was asked for cannot be done.", "Change the recipe and submit it again.")
ACCESS = (
    "A permission is missing; the recipe itself may be right.",
    "Have access granted, or name a repository that this key and the service's Hub account may use.",
)
INPUTS = (
    "One of the input repositories cannot be used as it is.",
    "Mend the repository that the message names, or name another; the service has nothing to mend here.",
)
EVALUATION = ("The evaluation that the recipe asks for cannot be run.", "Change the recipe's evaluation, or its files.")
RESULT = (
    "Nothing broke: the result was measured and is not what was asked for.",
    "Look at the trade-off below, then restore with other settings or ask for less.",
)
TARGET = (
    "The target repository was not as it was when the job began.",
    "Look at who else writes to it, then retry: the job goes on top of what is there.",
)
HUB = ("The Hub did not answer, or not as it should.", "Nothing of yours: retry when the Hub answers again.")
MACHINE = ("The worker's machine failed, not the recipe.", "Retry; if it fails again, show this page to the operator.")
TIME = ("The job took longer than it was given.", "Retry with longer deadlines, or at a quieter time.")
SERVICE = (
    "Something in the service is wrong, not in the recipe.",
    "Retry once; then show this page, with its request id, to the operator.",
)

_EVALUATION = {Code.TASK_UNKNOWN, Code.TASK_INVALID, Code.TASK_EMPTY, Code.TASK_UNSUPPORTED, Code.TOKENIZER_UNSUITABLE}
_ACCESS = {
    Code.READ_NOT_GRANTED, Code.WRITE_NOT_GRANTED, Code.REPO_GATED, Code.REPO_ACCESS_DENIED, Code.TARGET_NOT_WRITABLE,
    Code.SCOPE_MISSING, Code.UNAUTHENTICATED,
}  # fmt: skip
_REQUEST = {
    Code.INVALID_REQUEST, Code.INVALID_RECIPE, Code.NOTHING_TO_SCORE, Code.MERGE_UNDEFINED, Code.REPO_NOT_FOUND,
    Code.REVISION_NOT_FOUND, Code.ZERO_NORM, Code.VOCABULARY_MISMATCH, Code.ARCHITECTURE_MISMATCH,
    Code.LIMIT_EXCEEDED,
}  # fmt: skip
_MACHINE = {Code.DISK_FULL, Code.OUT_OF_MEMORY, Code.WORKER_LOST, Code.COMPUTE_CRASHED, Code.STALLED}
_GROUPS = (
    (_EVALUATION, EVALUATION), (_ACCESS, ACCESS), (_REQUEST, REQUEST), (_MACHINE, MACHINE),
    ({Code.GATE_FAILED}, RESULT), ({Code.TARGET_MOVED, Code.TARGET_BUSY}, TARGET),
    ({Code.HUB_UNAVAILABLE, Code.HUB_REFUSED}, HUB), ({Code.QUEUE_EXPIRED, Code.RUNTIME_EXCEEDED}, TIME),
)  # fmt: skip


def fault_of(code: str) -> Fault:
    """The fault of a code; one that this release does not know is told as the service's."""
    if code not in list(Code):
        whose, change = SERVICE
        return Fault(title=code, whose=whose, change=change, hint="", retryable=False)
    kind = KINDS[Code(code)]
    # what is refused by a 4xx and stands in no group is something about the checkpoints
    rest = INPUTS if kind.status < 500 else SERVICE
    whose, change = next((words for codes, words in _GROUPS if code in codes), rest)
    return Fault(title=kind.title, whose=whose, change=change, hint=kind.hint, retryable=kind.retryable)
