"""What `policy: auto` did, and what the scores foretold, as a job's page shows it. Every part may be missing. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.dashboard.charts import Strength
from app.dashboard.charts.scales import percent

Estimate = Mapping[str, Any]
SCORES = {"score": "score", "snr": "SNR", "swci": "SWCI", "svdr": "SVDR", "relative_change": "relative change"}
HOW = {"gradient": "by slopes, one strength for each weight", "groups": "by groups of weights, split where it pays"}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One point that the search decided on: taken where it beats one strength for all weights beyond the noise."""

    label: str
    chosen: bool
    taken: str
    retention: float | None
    gain: float | None
    advantage: Estimate


@dataclass(frozen=True, kw_only=True)
class Search:
    """How the strengths were come by."""

    aim: str
    how: str
    groups: Sequence[Strength]
    beyond: Sequence[str]
    """groups whose mean strength lies beyond the adapted model"""
    choices: Sequence[Choice]


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Whether a tensor's score told what restoring it alone did to retention."""

    tensors: int
    t: float | None
    correlations: Sequence[tuple[str, Estimate]]
    sample: Sequence[Mapping[str, Any]]


def search_of(evaluation: Mapping[str, Any]) -> Search | None:
    """The search of the report's evaluation; None where none was made."""
    found = evaluation.get("search")
    if not found:
        return None
    groups = [_strength(name, one) for name, one in sorted((found.get("groups") or {}).items())]
    return Search(
        aim=_aim(found), how=_how(found), groups=groups, beyond=[one.group for one in groups if one.t > 1],
        choices=[_choice(one) for one in found.get("choices") or ()],
    )  # fmt: skip


def prediction_of(evaluation: Mapping[str, Any]) -> Prediction | None:
    """The prediction of the report's evaluation; None where there were too few tensors for one."""
    found = evaluation.get("prediction")
    if not found:
        return None
    known = found.get("spearman") or {}
    return Prediction(
        tensors=found.get("tensors") or 0, t=found.get("t"),
        correlations=[(words, known[name]) for name, words in SCORES.items() if known.get(name)],
        sample=sorted(found.get("sample") or (), key=lambda one: -(one.get("change") or 0.0)),
    )  # fmt: skip


def _strength(name: str, one: Mapping[str, Any]) -> Strength:
    return Strength(group=name, t=one["t"], parameters=one.get("parameters"), share=one.get("share"))


def _aim(found: Mapping[str, Any]) -> str:
    asked = found.get("objective") or {}
    least = percent(asked.get("least"))
    if asked.get("kind") == "gain":
        return f"as much of the gain as can be kept at a retention of at least {least}"
    frontier = ", and the same for other shares of the gain" if asked.get("kind") == "frontier" else ""
    return f"as much retention as can be had with at least {least} of the gain kept{frontier}"


def _how(found: Mapping[str, Any]) -> str:
    method = str(found.get("method") or "")
    spent = f"{found['spent']:g} of {found['budget']:g}" if found.get("budget") and "spent" in found else "-"
    most = f", strengths up to {found['most']:g}" if found.get("most") is not None else ""
    return f"{HOW.get(method, method)}: {spent} evaluations of the calibration set{most}"


def _choice(one: Mapping[str, Any]) -> Choice:
    uniform = one.get("uniform_t")
    return Choice(
        label=str(one.get("label") or "-"), chosen=bool(one.get("chosen")), retention=one.get("retention"),
        gain=one.get("gain_kept"), taken="as searched" if one.get("searched") else f"t = {uniform:.3g} for all weights"
        if uniform is not None else "one strength for all weights",
        advantage={"value": one.get("advantage"), "low": one.get("advantage_low")},
    )  # fmt: skip
