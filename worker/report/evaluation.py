"""What the report's evaluation comes to in a few words and figures."""

from collections.abc import Mapping
from typing import Any

from worker.evaluation.bootstrap import Estimate
from worker.evaluation.measures import Summary
from worker.report import schema


def gate_warnings(evaluation: schema.Evaluation | None) -> list[str]:
    """Why a gate that only warns was not passed."""
    gate = evaluation.gate if evaluation else None
    if gate is None or gate.passed or gate.on_fail != "warn":
        return []
    return [f"the gate was not passed: {reason}" for reason in gate.reasons]


def evaluation_summary(report: Mapping[str, Any]) -> dict[str, Any]:
    """The job's metrics of a report's evaluation, and the gate's word for the supervisor."""
    evaluation = report["evaluation"]
    if evaluation is None:
        return {"metrics": {}}
    gate = evaluation["gate"]
    metrics = {
        "retention": _value(evaluation["retention"]), "gain_kept": _value(evaluation["gain_kept"]),
        "gate": None if gate is None else "passed" if gate["passed"] else "failed",
    }
    blocked = gate is not None and not gate["passed"] and gate["on_fail"] == "block"
    return {"metrics": metrics, "blocked": gate["reasons"] if blocked else []}


def statement(evaluation: schema.Evaluation) -> str:
    """One sentence: retention and gain kept, with their intervals; of several models, of each by its name."""
    if len(evaluation.models) > 1:
        told = [f"{one.repo} {words}" for one in evaluation.models if (words := _sides(one.retention, one.gain_kept))]
        return f"Measured: {'; '.join(told)}." if told else ""
    words = _sides(evaluation.retention, evaluation.gain_kept)
    return f"Measured: {words}." if words else ""


def _sides(retention: Summary | None, gain_kept: Summary | None) -> str:
    sides = (("retention", retention), ("gain kept", gain_kept))
    return ", ".join(f"{name} {_shown(summary)}" for name, summary in sides if summary)


def _value(summary: Mapping[str, Any] | None) -> float | None:
    return summary["mean"]["value"] if summary else None


def _shown(summary: Summary) -> str:
    mean: Estimate = summary.mean
    if mean.value is None:
        return "not defined"
    interval = "" if mean.low is None else f" ({mean.low:.3f} to {mean.high:.3f})"
    return f"{mean.value:.3f}{interval}"
