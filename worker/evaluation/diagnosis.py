"""What to look at in a restoration: too much of it, too little, or a simple control that does as well.

Every group of weights is measured both ways: what comes back if it is left the adapted model's, and what more would be
undone if it went half the way on to the base. Differences count where their interval leaves zero.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from worker.evaluation.bootstrap import Estimate, Floats, estimate
from worker.evaluation.candidates import Strengths
from worker.evaluation.groups import Groups
from worker.evaluation.sides import GAIN, RETENTION

WORTH = 0.01
"""of retention or gain: less than a point is not worth a word"""
_SETTINGS = {"embedding": "method.embedding: true", "head": "method.head: true"}


@dataclass(frozen=True)
class Probe:
    """The result with one group moved: `undone` (the adapted model's again) or `further` (half the way to the base)."""

    group: str
    way: str
    strengths: Strengths


def probes(chosen: Strengths, groups: Groups) -> Iterator[Probe]:
    """What is to be measured; a group that the result leaves alone has nothing to undo."""
    for group, names in groups.items():
        if any(chosen.get(name, 1.0) != 1 for name in names):
            yield Probe(group, "undone", {**chosen, **dict.fromkeys(names, 1.0)})
        if any(chosen.get(name, 1.0) != 0 for name in names):
            yield Probe(group, "further", {**chosen, **{name: chosen.get(name, 1.0) / 2 for name in names}})


def diagnose(
    chosen: Floats, probed: Sequence[tuple[Probe, Floats]], *, auto: bool, controls: Mapping[str, Floats],
    curve: Collection[str] = (),
) -> list[dict[str, Any]]:  # fmt: skip
    """Findings as `schema.Diagnosis` has them. Arrays are 2 sides x draws, the first draw as measured.

    `curve` names those of the controls that are one control, the uniform curve.
    """
    over = _groups(chosen, probed, way="undone", wins=GAIN)
    under = _groups(chosen, probed, way="further", wins=RETENTION)
    found = []
    if over:
        found.append(_finding(
            "over_restored", over, setting=_over_setting(over, auto=auto),
            what="gain was given up for which little or nothing was undone",
        ))  # fmt: skip
    if under and chosen[RETENTION, 0] < 1:
        found.append(_finding(
            "under_restored", under, setting=_under_setting(under, auto=auto),
            what="more of the forgetting can be undone for less of the gain",
        ))  # fmt: skip
    return [*found, *_as_good(chosen, controls, curve=curve)]


def unjudged(*, forgotten: bool, gained: bool) -> dict[str, Any]:
    """The finding where there is no trade-off: nothing was forgotten or nothing gained in the tasks reported on."""
    lacking = [
        *([] if forgotten else ["nothing was forgotten in the general tasks (or none is named)"]),
        *([] if gained else ["nothing was gained in the domain tasks (or none is named)"]),
    ]
    parts = [*([] if forgotten else ["evaluation.general"]), *([] if gained else ["evaluation.domain"])]
    return {
        "kind": "not_judged", "groups": (), "setting": f"{' and '.join(parts)}: tasks in which the two models differ",
        "message": f"{' and '.join(lacking)}: whether too much or too little was restored cannot be told",
    }  # fmt: skip


def _groups(
    chosen: Floats, probed: Sequence[tuple[Probe, Floats]], *, way: str, wins: int
) -> dict[str, tuple[Estimate, Estimate]]:
    """Groups that win more of one side, beyond the noise, than they lose of the other."""
    found = {}
    for probe, samples in probed:
        won, lost = samples[wins] - chosen[wins], chosen[1 - wins] - samples[1 - wins]
        more, net = estimate(won), estimate(won - np.maximum(lost, 0))
        if probe.way == way and (more.value or 0) > WORTH and net.low is not None and net.low > 0:
            found[probe.group] = (more, estimate(lost))
    return found


def _finding(kind: str, groups: Mapping[str, tuple[Estimate, Estimate]], *, what: str, setting: str) -> dict[str, Any]:
    over = kind == "over_restored"
    sides = ("gain kept", "retention") if over else ("retention", "gain kept")
    told = "; ".join(
        f"{group}: {sides[0]} {100 * (won.value or 0):+.1f} points, {sides[1]} {100 * -(lost.value or 0) + 0.0:+.1f}"
        for group, (won, lost) in groups.items()
    )
    change = "left as the adapted model has it" if over else "moved half the way further to the base"
    changes = {group: {"won": won.model_dump(), "lost": lost.model_dump()} for group, (won, lost) in groups.items()}
    message = f"{what} (each group {change}, by itself: {told})"
    return {"kind": kind, "message": message, "groups": tuple(groups), "setting": setting, "changes": changes}


def _over_setting(groups: Mapping[str, Any], *, auto: bool) -> str:
    if auto:
        return "method.auto.least: a higher value, or more calibration items"
    return f"method.t: nearer to 1, or method.exclude with the tensors of {', '.join(groups)}"


def _under_setting(groups: Mapping[str, Any], *, auto: bool) -> str:
    if auto:
        return "method.auto.least: a lower value, or more calibration items"
    own = [_SETTINGS[group] for group in groups if group in _SETTINGS]
    rest = [group for group in groups if group not in _SETTINGS]
    return ", ".join([*own, *([f"method.restore with the tensors of {', '.join(rest)}"] if rest else [])])


def _as_good(chosen: Floats, controls: Mapping[str, Floats], *, curve: Collection[str]) -> Iterator[dict[str, Any]]:
    """Controls that keep no less of either side but for the noise; the uniform curve counts by its best point."""
    ahead = {
        name: estimate(np.minimum(samples[RETENTION] - chosen[RETENTION], samples[GAIN] - chosen[GAIN]))
        for name, samples in controls.items()
    }
    best = max((name for name in controls if name in curve), key=lambda name: _measured(ahead[name]), default=None)
    for name, samples in controls.items():
        if name in curve and name != best:
            continue
        if _measured(ahead[name]) >= -WORTH and (ahead[name].high or 0.0) >= 0:
            yield {
                "kind": "control_as_good", "groups": (), "setting": None,
                "message": f"{name} keeps as much of both sides: {100 * samples[RETENTION, 0]:.1f} % retention and "
                f"{100 * samples[GAIN, 0]:.1f} % of the gain",
            }  # fmt: skip


def _measured(one: Estimate) -> float:
    return -np.inf if one.value is None else one.value
