"""What a pair's answers say: points with intervals, and each method beside the uniform curve at the same gain.

Between measured points a method's curve is a cubic spline along its strength, for both sides, draw by draw: straight
lines between points a tenth apart would lie up to a point below the bent curve, and the curve is the reference.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.interpolate import CubicSpline

from benchmarks.evidence.plan import ASKED
from benchmarks.evidence.ruler import PARTS, sheet
from worker.evaluation.bootstrap import Floats, estimate
from worker.evaluation.sides import GAIN, RETENTION, Sheets, Sides

FINE = 0.01
"""of a curve's strength, between the points that are put on it"""
Point = tuple[float, Sheets]
"""a strength, and what the model answered"""


def judge(measured: Mapping[str, Any]) -> dict[str, Any]:
    """The pair's figures."""
    base, adapted = (_sheets(each) for each in measured["ends"])
    sides = Sides(base=base, adapted=adapted, parts={role: PARTS[role] for role in base})
    families = {family: [(one["t"], _sheets(one["answers"])) for one in members]
                for family, members in measured["families"].items()}  # fmt: skip
    reference = _curve("uniform", families["uniform"], sides)
    curves = {family: _curve(family, members, sides) for family, members in families.items()}
    search = measured["search"]
    return {
        **{name: measured[name] for name in ("pair", "parameters")}, "spent": search["spent"],
        "costs": measured["costs"] | {"search": search["core_seconds"]},
        "losses": {role: [base[role].mean, adapted[role].mean] for role in base},
        "shares": {family: float(np.mean([one["share"] for one in members if one["t"] != 1 or family == "dg_hard"]))
                   for family, members in measured["families"].items()},
        "asked": {family: {str(least): _at(curve, reference, least=least) for least in ASKED}
                  for family, curve in curves.items()},
        "auto": {least: _chosen(choice, families["uniform"], sides) for least, choice in search["choices"].items()},
    }  # fmt: skip


def _sheets(answers: Mapping[str, Sequence[float]]) -> Sheets:
    return {role: sheet(role, list(nats)) for role, nats in answers.items()}


def _curve(family: str, members: Sequence[Point], sides: Sides) -> Floats:
    """Points x 2 x draws along the strength. All begin at the adapted model; what is uniform ends at the base."""
    ends = [(0.0, sides.base)] if family in ("uniform", "dg_hard") else []
    points = sorted([*ends, *members], key=lambda one: one[0])
    if family != "dg_hard":
        return smooth([t for t, _ in points] + [1.0], sides.samples([*(one for _, one in points), sides.adapted]))
    samples = sides.samples([*(one for _, one in points), sides.adapted])
    return np.concatenate([smooth([t for t, _ in points], samples[:-1]), samples[-1:]])  # its t = 1 is filtered


def smooth(ts: Sequence[float], samples: Floats) -> Floats:
    """A curve through samples (points x 2 x draws, by rising strength), at `FINE` steps and at every point."""
    fine = np.union1d(np.arange(ts[0], ts[-1], FINE), ts)
    found: Floats = CubicSpline(ts, samples, axis=0)(fine) if len(ts) > 2 else samples
    return found


def along(curve: Floats, gains: Floats) -> Floats:
    """The most that a curve (points x 2 x draws) undoes at given gains, draw by draw."""
    held, wanted = curve[:, GAIN], curve[:, RETENTION]
    levels = np.clip(gains, held.min(axis=0), held.max(axis=0))
    before, after = held[:-1], held[1:]
    way = (levels - before) / np.where(before == after, 1.0, after - before)
    crossed = (np.minimum(before, after) <= levels) & (levels <= np.maximum(before, after))
    found: Floats = np.where(crossed, wanted[:-1] + way * (wanted[1:] - wanted[:-1]), -np.inf).max(axis=0)
    return found


def _at(curve: Floats, reference: Floats, *, least: float) -> dict[str, Any] | None:
    """Retention where the gain is as asked; none where the curve does not come so low."""
    if curve[:, GAIN, 0].min() > least:
        return None
    found, level = (along(each, np.full(each.shape[2], least)) for each in (curve, reference))
    return {**estimate(found).model_dump(), **_difference(found - level)}


def _chosen(choice: Mapping[str, Any], uniform: Sequence[Point], sides: Sides) -> dict[str, Any]:
    """A choice of the search beside the uniform curve at the same gain; also for each ability by itself."""
    own = _sheets(choice["answers"])
    told = {name: choice[name] for name in ("searched", "uniform_t", "calibration", "checked")}
    return {
        **told, **_beside(own, uniform, sides),
        "abilities": {role: _beside(own, uniform, one) for role, one in _abilities(sides)},
    }  # fmt: skip


def _beside(own: Sheets, uniform: Sequence[Point], sides: Sides) -> dict[str, Any]:
    found = sides.samples([own])[0]
    difference = _difference(found[RETENTION] - along(_curve("uniform", uniform, sides), found[GAIN]))
    retention, gain = (estimate(found[side]).model_dump() for side in (RETENTION, GAIN))
    return {"retention": retention, "gain": gain, **difference}


def _abilities(sides: Sides) -> Iterator[tuple[str, Sides]]:
    """Each general ability alone that was forgotten, where there are several."""
    general = sides.defined(RETENTION)
    for role in general if len(general) > 1 else ():
        yield role, replace(sides, parts={role: PARTS[role], "domain": PARTS["domain"]})


def _difference(samples: Floats) -> dict[str, Any]:
    return {"advantage": estimate(samples).model_dump(), "draws": samples[1:]}
