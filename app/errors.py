"""Every way in which a request or a job can fail, as a closed list of codes.

The same code stands in an HTTP problem, in a job's `error` and in the logs, so callers can build on it.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Code(StrEnum):
    """The closed list. A code, once released, keeps its meaning."""

    # the request
    INVALID_REQUEST = "invalid_request"
    INVALID_RECIPE = "invalid_recipe"
    REQUEST_TOO_LARGE = "request_too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    UNAUTHENTICATED = "unauthenticated"
    SCOPE_MISSING = "scope_missing"
    RATE_LIMITED = "rate_limited"
    QUOTA_EXCEEDED = "quota_exceeded"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused"
    TOO_LATE = "too_late"
    NOT_RETRYABLE = "not_retryable"
    NOT_READY = "not_ready"
    WEBHOOK_REFUSED = "webhook_refused"
    # the Hub's repositories
    READ_NOT_GRANTED = "read_not_granted"
    WRITE_NOT_GRANTED = "write_not_granted"
    REPO_NOT_FOUND = "repo_not_found"
    REPO_GATED = "repo_gated"
    REPO_ACCESS_DENIED = "repo_access_denied"
    REVISION_NOT_FOUND = "revision_not_found"
    HUB_UNAVAILABLE = "hub_unavailable"
    HUB_REFUSED = "hub_refused"
    # the checkpoints
    PICKLE_ONLY = "pickle_only"
    WEIGHTS_MISSING = "weights_missing"
    REMOTE_CODE = "remote_code"
    QUANTIZED_WEIGHTS = "quantized_weights"
    CONFIG_INVALID = "config_invalid"
    HEADER_INVALID = "header_invalid"
    HEADER_TOO_LARGE = "header_too_large"
    TENSOR_OVERLAP = "tensor_overlap"
    TENSOR_HOLE = "tensor_hole"
    INDEX_INVALID = "index_invalid"
    DUPLICATE_TENSOR = "duplicate_tensor"
    SHARD_MISSING = "shard_missing"
    UNSAFE_PATH = "unsafe_path"
    LIMIT_EXCEEDED = "limit_exceeded"
    DTYPE_UNSUPPORTED = "dtype_unsupported"
    DTYPE_MISMATCH = "dtype_mismatch"
    ARCHITECTURE_MISMATCH = "architecture_mismatch"
    TENSOR_MISSING = "tensor_missing"
    SHAPE_MISMATCH = "shape_mismatch"
    TIED_HEAD_MISMATCH = "tied_head_mismatch"
    VOCABULARY_MISMATCH = "vocabulary_mismatch"
    NOTHING_TO_SCORE = "nothing_to_score"
    MERGE_UNDEFINED = "merge_undefined"
    ZERO_NORM = "zero_norm"
    ADAPTER_INVALID = "adapter_invalid"
    ADAPTER_UNSUPPORTED = "adapter_unsupported"
    # the evaluation
    TASK_UNKNOWN = "task_unknown"
    TASK_INVALID = "task_invalid"
    TASK_EMPTY = "task_empty"
    TASK_UNSUPPORTED = "task_unsupported"
    TOKENIZER_UNSUITABLE = "tokenizer_unsuitable"
    MODEL_UNSUPPORTED = "model_unsupported"
    EVALUATION_MISSING = "evaluation_missing"
    GATE_FAILED = "gate_failed"
    # the target
    TARGET_BUSY = "target_busy"
    TARGET_NOT_WRITABLE = "target_not_writable"
    TARGET_MOVED = "target_moved"
    # the work
    FILE_CORRUPT = "file_corrupt"
    NONFINITE_TENSOR = "nonfinite_tensor"
    VERIFICATION_FAILED = "verification_failed"
    DISK_FULL = "disk_full"
    OUT_OF_MEMORY = "out_of_memory"
    WORKER_LOST = "worker_lost"
    COMPUTE_CRASHED = "compute_crashed"
    STALLED = "stalled"
    QUEUE_EXPIRED = "queue_expired"
    RUNTIME_EXCEEDED = "runtime_exceeded"
    INTERNAL_ERROR = "internal_error"


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What is always true of a code."""

    status: int
    title: str
    retryable: bool = False
    hint: str = ""


KINDS: dict[Code, Kind] = {
    Code.INVALID_REQUEST: Kind(status=400, title="The request cannot be read"),
    Code.INVALID_RECIPE: Kind(
        status=422, title="The recipe is not valid", hint="Each entry of errors[] points at a field of the body."
    ),
    Code.REQUEST_TOO_LARGE: Kind(status=413, title="The request body is too large"),
    Code.UNSUPPORTED_MEDIA_TYPE: Kind(
        status=415, title="The request body is not JSON by its type", hint="Send Content-Type: application/json."
    ),
    Code.UNAUTHENTICATED: Kind(status=401, title="A valid API key is needed", hint="Send Authorization: Bearer <key>."),
    Code.SCOPE_MISSING: Kind(status=403, title="The API key lacks a scope"),
    Code.RATE_LIMITED: Kind(
        status=429, title="Too many requests", retryable=True, hint="Wait for the seconds in Retry-After."
    ),
    Code.QUOTA_EXCEEDED: Kind(
        status=429, title="A quota of the API key is used up", retryable=True,
        hint="Wait until jobs have ended, or for the seconds in Retry-After.",
    ),
    Code.NOT_FOUND: Kind(status=404, title="There is no such thing here"),
    Code.METHOD_NOT_ALLOWED: Kind(status=405, title="This method is not offered here"),
    Code.IDEMPOTENCY_KEY_REUSED: Kind(
        status=422, title="The Idempotency-Key was used with another body", hint="Use a new key for a new request."
    ),
    Code.TOO_LATE: Kind(status=409, title="It is too late for this"),
    Code.NOT_RETRYABLE: Kind(status=409, title="Only failed and cancelled jobs can be retried"),
    Code.NOT_READY: Kind(status=503, title="The service is not ready", retryable=True),
    Code.WEBHOOK_REFUSED: Kind(
        status=422, title="The webhook's URL is not allowed", hint="Ask the operator to list its host in webhook_hosts."
    ),
    Code.READ_NOT_GRANTED: Kind(
        status=403,
        title="The API key may not read this repository",
        hint="Only public repositories and the namespaces granted to the key can be read.",
    ),
    Code.WRITE_NOT_GRANTED: Kind(
        status=403, title="The API key may not write to this namespace", hint="Ask an administrator for a write grant."
    ),
    Code.REPO_NOT_FOUND: Kind(status=422, title="The repository does not exist", hint="Check the name's spelling."),
    Code.REPO_GATED: Kind(
        status=403, title="The repository is gated", hint="Accept its terms with the service's Hub account."
    ),
    Code.REPO_ACCESS_DENIED: Kind(status=403, title="The Hub denies access to the repository"),
    Code.REVISION_NOT_FOUND: Kind(status=422, title="The revision does not exist"),
    Code.HUB_UNAVAILABLE: Kind(status=503, title="The Hub does not answer", retryable=True, hint="Try again later."),
    Code.HUB_REFUSED: Kind(status=422, title="The Hub refused the call"),
    Code.PICKLE_ONLY: Kind(
        status=422,
        title="The repository has its weights as pickles only",
        hint="Convert it to safetensors first; pickles are never opened.",
    ),
    Code.WEIGHTS_MISSING: Kind(status=422, title="The repository has no safetensors weights"),
    Code.REMOTE_CODE: Kind(
        status=422, title="The model needs code from its repository", hint="Code from repositories is never run."
    ),
    Code.QUANTIZED_WEIGHTS: Kind(
        status=422, title="The weights are quantised", hint="Merge the unquantised model, then quantise the result."
    ),
    Code.CONFIG_INVALID: Kind(status=422, title="config.json is missing or not valid"),
    Code.HEADER_INVALID: Kind(status=422, title="A safetensors header is not valid"),
    Code.HEADER_TOO_LARGE: Kind(status=422, title="A safetensors header is too large"),
    Code.TENSOR_OVERLAP: Kind(status=422, title="Two tensors overlap in a safetensors file"),
    Code.TENSOR_HOLE: Kind(status=422, title="A safetensors file has bytes that belong to no tensor"),
    Code.INDEX_INVALID: Kind(status=422, title="The safetensors index is not valid"),
    Code.DUPLICATE_TENSOR: Kind(status=422, title="A tensor is stored more than once"),
    Code.SHARD_MISSING: Kind(
        status=422, title="The index names a file that is not there", hint="Upload the missing shard."
    ),
    Code.UNSAFE_PATH: Kind(status=422, title="A file's name leads out of the repository"),
    Code.LIMIT_EXCEEDED: Kind(status=422, title="A limit of the service is exceeded"),
    Code.DTYPE_UNSUPPORTED: Kind(status=422, title="A tensor has a dtype that cannot be merged"),
    Code.DTYPE_MISMATCH: Kind(status=422, title="A tensor's dtype does not go with that of the other models"),
    Code.ARCHITECTURE_MISMATCH: Kind(status=422, title="The models differ in architecture"),
    Code.TENSOR_MISSING: Kind(status=422, title="A tensor is missing from one of the models"),
    Code.SHAPE_MISMATCH: Kind(status=422, title="A tensor's shape differs between the models"),
    Code.TIED_HEAD_MISMATCH: Kind(status=422, title="One model ties its head to the embedding, the other does not"),
    Code.VOCABULARY_MISMATCH: Kind(status=422, title="The models' vocabularies differ"),
    Code.NOTHING_TO_SCORE: Kind(
        status=422, title="No tensor matches the module patterns", hint="Set method.modules for this architecture."
    ),
    Code.ADAPTER_INVALID: Kind(
        status=422, title="The adapter is not valid", hint="Save it again with peft's save_pretrained."
    ),
    Code.ADAPTER_UNSUPPORTED: Kind(
        status=422,
        title="The adapter cannot be applied here",
        hint="Merge it into its base with peft's merge_and_unload, and use the whole model that this gives.",
    ),
    Code.MERGE_UNDEFINED: Kind(
        status=422, title="The method has no result for a tensor", hint="Change the method's parameters."
    ),
    Code.ZERO_NORM: Kind(
        status=422, title="A tensor of zeros has no direction", hint="Use a method that does not need one, as linear."
    ),
    Code.TASK_UNKNOWN: Kind(
        status=422, title="lm-eval knows no task of this name", hint="`lm-eval ls tasks` lists the names."
    ),
    Code.TASK_INVALID: Kind(
        status=422, title="A task file is not valid", hint="The message names the line and the field."
    ),
    Code.TASK_EMPTY: Kind(status=422, title="A task has no items"),
    Code.TASK_UNSUPPORTED: Kind(
        status=422, title="The task cannot be evaluated here", hint="Take a task that grades each item by itself."
    ),
    Code.TOKENIZER_UNSUITABLE: Kind(status=422, title="The tokenizer lacks a token that the evaluation needs"),
    Code.MODEL_UNSUPPORTED: Kind(
        status=422, title="The model cannot be evaluated here",
        hint="It must be a causal language model that transformers knows, with all its weights.",
    ),
    Code.EVALUATION_MISSING: Kind(
        status=500, title="The worker is installed without what evaluations need", retryable=True,
        hint="Install the extra: pip install 'spear-merge[eval]'.",
    ),
    Code.GATE_FAILED: Kind(
        status=422, title="The result did not pass the gate and was not published",
        hint="Look at the evaluation in the report; restore more, or lower the gate.",
    ),
    Code.TARGET_BUSY: Kind(
        status=409, title="Another job is active for this target", hint="Wait for it, cancel it, or use another branch."
    ),
    Code.TARGET_NOT_WRITABLE: Kind(status=403, title="The service's Hub account cannot write to the target"),
    Code.TARGET_MOVED: Kind(
        status=409,
        title="Somebody else committed to the target while this job published",
        hint="Look at the new commit, then retry the job to publish on top of it.",
    ),
    Code.FILE_CORRUPT: Kind(
        status=422, title="A downloaded file does not match its digest", retryable=True, hint="Check the repository."
    ),
    Code.NONFINITE_TENSOR: Kind(status=422, title="A tensor has NaN or infinite values"),
    Code.VERIFICATION_FAILED: Kind(status=500, title="The merged checkpoint failed verification"),
    Code.DISK_FULL: Kind(
        status=500, title="The worker's disk is full", retryable=True, hint="Free space, then retry the job."
    ),
    Code.OUT_OF_MEMORY: Kind(status=500, title="The worker ran out of memory", retryable=True),
    Code.WORKER_LOST: Kind(status=500, title="The worker was lost", retryable=True),
    Code.COMPUTE_CRASHED: Kind(status=500, title="The computing process died", retryable=True),
    Code.STALLED: Kind(status=500, title="The job made no progress before its deadline", retryable=True),
    Code.QUEUE_EXPIRED: Kind(
        status=500, title="The job did not start before its deadline", retryable=True,
        hint="Retry it, with a longer max_queue_seconds or a higher priority.",
    ),
    Code.RUNTIME_EXCEEDED: Kind(
        status=500, title="The job did not end before its deadline", retryable=True,
        hint="Retry it with a longer max_runtime_seconds.",
    ),
    Code.INTERNAL_ERROR: Kind(status=500, title="Something failed inside the service", retryable=True),
}


class SpearError(Exception):
    """An expected failure.

    `names` holds the offending names (`repo`, `file`, `tensor`, `field`, ...); `pointer` is the JSON pointer of the
    recipe's field at fault, where there is one.
    """

    def __init__(self, code: Code, message: str, *, pointer: str | None = None, **names: Any) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.pointer = pointer
        self.names = names

    @property
    def kind(self) -> Kind:
        return KINDS[self.code]
