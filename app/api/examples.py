"""Examples of requests for the API's description. A test sends each of them to a running API."""

from typing import Any

JOB = "mrg_01jdz8k3n4q5r6s7t8v9w0x1y2"
SCORING = "scr_01jdz8k3n4q5r6s7t8v9w0x1y2"
EVALUATION = "evl_01jdz8k3n4q5r6s7t8v9w0x1y2"
STUDY = "std_01jdz8k3n4q5r6s7t8v9w0x1y2"

_RECIPE: dict[str, Any] = {
    "base": {"repo": "org/base"}, "experts": [{"repo": "org/adapted"}],
    "method": {"name": "spear", "policy": "balanced"}, "target": {"repo": "org/restored"}, "labels": {"team": "risk"},
}
_MERGEKIT = """merge_method: linear
models:
  - model: org/base
    parameters: {weight: 0.5}
  - model: org/adapted
    parameters: {weight: 0.5}
dtype: bfloat16
"""
_PAIR = {"base": {"repo": "org/base"}, "experts": [{"repo": "org/adapted"}], "method": {"name": "spear"}}
_MERGES: dict[str, Any] = {
    "restore": {"summary": "Restore what was forgotten", "value": _RECIPE},
    "several": {
        "summary": "Merge two models by TIES, on a branch of its own",
        "value": {
            "base": {"repo": "org/base"}, "experts": [{"repo": "org/adapted", "weight": 0.7}, {"repo": "org/base"}],
            "method": {"name": "ties", "density": 0.6}, "target": {"repo": "org/merged", "branch": "ties"},
        },
    },
    "mergekit": {
        "summary": "A recipe of mergekit", "value": {"mergekit": _MERGEKIT, "target": {"repo": "org/averaged"}},
    },
}  # fmt: skip

_TASK = {"kind": "multiple_choice", "repo": "org/sets"}
_STUDY: dict[str, Any] = {
    "base": {"repo": "org/base"}, "experts": [{"repo": "org/adapted", "domain": "finance"}, {"repo": "org/second"}],
    "methods": [{"method": {"name": "task_arithmetic"}, "grid": {"lambda": [0.3, 0.7]}}],
    "evaluation": {
        "domain": [{"name": "finance", "path": "fin.jsonl", "ability": "finance", **_TASK}],
        "calibration": {"domain": [{"name": "finance-calibration", "path": "cal.jsonl", **_TASK}]},
    },
}  # fmt: skip
_EVALUATION: dict[str, Any] = {
    "models": [{"repo": "org/adapted"}], "base": {"repo": "org/base"}, "experts": [{"repo": "org/adapted"}],
    "evaluation": {"domain": [{"name": "finance", "path": "fin.jsonl", **_TASK}], "limit": 200},
}  # fmt: skip

BODIES: dict[str, dict[str, Any]] = {
    "submit_merge": _MERGES,
    "plan_merge": _MERGES,
    "submit_scoring": {"pair": {"summary": "Score a pair", "value": _PAIR}},
    "submit_evaluation": {"model": {"summary": "Measure a model beside its parents", "value": _EVALUATION}},
    "submit_study": {"pair": {"summary": "Two experts, each alone and together", "value": _STUDY}},
    "create_key": {
        "platform": {
            "summary": "A key that merges in one namespace",
            "value": {
                "name": "platform", "scopes": ["merges:read", "merges:write"], "reads": ["org"], "writes": ["org"],
            },
        }
    },
    "rotate_key": {"overlap": {"summary": "Both keys work for an hour", "value": {"overlap_seconds": 3600}}},
}
"""by operation, then by name"""

PARAMETERS: dict[str, Any] = {
    "job_id": JOB, "number": 1, "key_id": "key_01jdz8k3n4q5r6s7t8v9w0x1y2", "code": "target_busy",
    "idempotency-key": "finance-2026-11-21", "prefer": "wait=1", "if-none-match": 'W/"20"', "limit": 20,
    "label": ["team:risk"], "status": ["running", "queued"], "target": "org/restored", "last-event-id": "4",
    "accept": "application/json", "tensor": "model.layers.0.self_attn.q_proj.weight", "owner": "platform",
    "since": "2026-11-01T00:00:00Z", "task": "finance", "format": "csv",
}  # fmt: skip
"""by name"""


def example_of(operation: str, parameter: str) -> Any:
    """An example of a parameter, or None."""
    if parameter == "job_id" and "scoring" in operation:
        return SCORING
    if parameter == "job_id" and "evaluation" in operation:
        return EVALUATION
    if parameter == "job_id" and "stud" in operation:
        return STUDY
    return PARAMETERS.get(parameter)
