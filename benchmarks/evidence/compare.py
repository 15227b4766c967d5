"""One pair's comparison: every method's curve on held-out text, the search at every asked gain, and what it cost."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.evidence.kits import SMALL, Kit
from benchmarks.evidence.plan import ASKED, PairName
from benchmarks.evidence.rivals import CURVE, candidates, selection
from benchmarks.evidence.ruler import PARTS, Ruler
from benchmarks.evidence.scoring import score
from benchmarks.evidence.train import COSTS
from worker.evaluation.auto import Auto, Outcome
from worker.evaluation.bootstrap import Floats, estimate
from worker.evaluation.candidates import Between
from worker.evaluation.controls import Filtered, uniform
from worker.evaluation.search import Objective
from worker.evaluation.sides import GAIN, RETENTION, Sheets, Sides
from worker.evaluation.trials import Trials
from worker.scores import Row

SEARCH = {"budget": 60, "most": 1.4, "curvature": "of the uniform curve"}
"""evaluations of the calibration set, for all asked gains together; the largest strength"""
KEPT_DRAWS = 500
"""of the bootstrap, in the results"""


def compare(pair: PairName, kit: Kit = SMALL) -> dict[str, Any]:
    """The pair's results, from the folder of results where they are known."""
    if pair.results.exists():
        known = dict(json.loads(pair.results.read_text()))
        if known.get("search_settings") == SEARCH:
            return known
        results = {**known, **_search_anew(pair, known, kit=kit)}
    else:
        kit.prepare(pair)
        results = _compare(pair, kit)
    pair.results.parent.mkdir(parents=True, exist_ok=True)
    pair.results.write_text(json.dumps(results))
    return results


def _search_anew(pair: PairName, known: Mapping[str, Any], *, kit: Kit) -> dict[str, Any]:
    """Where the settings of the search have changed since: only that part of the results."""
    base, adapted = kit.load(pair.base), kit.load(pair.adapted)
    between = Between(base, adapted)
    held_out = Ruler(between, kit.texts(pair, "held_out"))
    rows, others = score(base, adapted)
    curve = []
    for candidate in uniform(tuple(between.sizes), ts=CURVE):
        between.move(candidate.strengths)
        curve.append(({}, held_out.ask(between.model)))
    calibration = Ruler(between, kit.texts(pair, "calibration"))
    found, spent = _searched(
        calibration, pair, selection(rows, others, share=0.25), curve=curve, held_out=held_out, sides=held_out.sides()
    )
    return {**found, "costs": {**known["costs"], "search": spent}}


def _searched(
    calibration: Ruler, pair: PairName, start: Mapping[str, float], *,
    curve: Sequence[tuple[dict[str, Any], Sheets]], held_out: Ruler, sides: Sides,
) -> tuple[dict[str, Any], float]:  # fmt: skip
    """The search's part of the results, and its core-seconds."""
    began = time.process_time()
    outcome = _search(calibration, pair, start=start)
    spent = time.process_time() - began
    auto = _auto(outcome, curve, ruler=held_out, sides=sides)
    return {"auto": auto, "spent": outcome.spent, "method": outcome.method, "search_settings": SEARCH}, spent


def _compare(pair: PairName, kit: Kit) -> dict[str, Any]:
    base, adapted = kit.load(pair.base), kit.load(pair.adapted)
    between = Between(base, adapted)
    held_out, calibration = (Ruler(between, kit.texts(pair, part)) for part in ("held_out", "calibration"))
    sides = held_out.sides()
    costs = _trained(pair)
    began = time.process_time()
    rows, others = score(base, adapted)
    costs["scoring"] = time.process_time() - began
    families = _families(between, rows, others, ruler=held_out, ablated=pair.ablated)
    found, costs["search"] = _searched(
        calibration, pair, selection(rows, others, share=0.25), curve=families["uniform"], held_out=held_out,
        sides=sides,
    )  # fmt: skip
    costs |= _merging(between, held_out)
    return {
        "pair": [pair.architecture, pair.domain, pair.seed], "costs": costs, "parameters": sum(between.sizes.values()),
        "losses": {role: [sides.base[role].mean, sides.adapted[role].mean] for role in sides.base},
        **_judged(families, sides=sides), **found,
    }  # fmt: skip


def _trained(pair: PairName) -> dict[str, float]:
    """Core-seconds of the training, where they were counted."""
    folders = {"pretraining": pair.base, "adaptation": pair.adapted}
    return {
        role: json.loads((folder / COSTS).read_text())["core_seconds"]
        for role, folder in folders.items() if (folder / COSTS).exists()
    }  # fmt: skip


def _families(
    between: Between, rows: Sequence[Row], others: Sequence[Row], *, ruler: Ruler, ablated: bool
) -> dict[str, list[tuple[dict[str, Any], Sheets]]]:
    """The measured points by method."""
    model, families = Filtered(between), {}
    for family, candidate in candidates(between.sizes, rows, others, ablated=ablated):
        model.move(candidate)
        facts = {"label": candidate.label, "seed": candidate.seed, "share": candidate.share(between.sizes),
                 "t": candidate.settings["t"]}  # fmt: skip
        families.setdefault(family, []).append((facts, ruler.ask(between.model)))
    return families


def _search(ruler: Ruler, pair: PairName, *, start: Mapping[str, float]) -> Outcome:
    """One search for the whole frontier, on calibration text alone."""
    sides = {"search": ruler.sides("search"), "check": ruler.sides("check")}
    auto = Auto(Trials(ruler), sides, SEARCH["budget"], most=SEARCH["most"], seed=pair.seed)
    return auto.run([Objective("retention", least) for least in sorted(ASKED, reverse=True)], starts=[start])


def _merging(between: Between, ruler: Ruler) -> dict[str, float]:
    began = time.process_time()
    between.move(dict.fromkeys(between.names, 0.5))
    merging = time.process_time() - began
    began = time.process_time()
    ruler.ask(between.model)
    return {"merging": merging, "evaluation": time.process_time() - began}


def _judged(families: Mapping[str, list[tuple[dict[str, Any], Sheets]]], *, sides: Sides) -> dict[str, Any]:
    """Points with intervals, and each method's retention at every asked gain beside the uniform curve's."""
    ends = [sides.base, sides.adapted]
    reference = sides.samples([*ends, *(sheets for _, sheets in families["uniform"])])
    points, asked = {}, {}
    for family, members in families.items():
        samples = sides.samples([sides.adapted, *(sheets for _, sheets in members)])
        points[family] = [
            {**facts, "retention": estimate(one[RETENTION]).model_dump(), "gain": estimate(one[GAIN]).model_dump()}
            for (facts, _), one in zip(members, samples[1:], strict=True)
        ]
        curve = reference if family == "uniform" else samples
        asked[family] = {str(least): _at(curve, reference, least=least) for least in ASKED}
    return {"points": points, "asked": asked}


def _at(curve: Floats, reference: Floats, *, least: float) -> dict[str, Any] | None:
    """Retention where the gain is as asked, straight between measured points; none where it does not come so low."""
    if curve[:, GAIN, 0].min() > least:
        return None
    found, level = (_along(each, np.full(each.shape[2], least)) for each in (curve, reference))
    return {**estimate(found).model_dump(), **_difference(found - level)}


def _auto(
    outcome: Outcome, members: Sequence[tuple[dict[str, Any], Sheets]], *, ruler: Ruler, sides: Sides
) -> dict[str, Any]:
    """The chosen points on held-out text, beside the uniform curve at the same gain."""
    found = {}
    for choice in outcome.choices:
        ruler.between.move(choice.strengths)
        models = [sides.base, sides.adapted, *(sheets for _, sheets in members), ruler.ask(ruler.between.model)]
        found[str(choice.objective.least)] = {
            **_beside_curve(models, sides), "searched": choice.searched, "uniform_t": choice.uniform,
            "calibration": choice.values, "checked": choice.advantage,
            "abilities": {role: _beside_curve(models, one) for role, one in _abilities(sides)},
        }  # fmt: skip
    return found


def _beside_curve(models: Sequence[Sheets], sides: Sides) -> dict[str, Any]:
    """The last model beside the curve of all others."""
    *reference, own = sides.samples(models)
    difference = _difference(own[RETENTION] - _along(np.stack(reference), own[GAIN]))
    return {"retention": estimate(own[RETENTION]).model_dump(), "gain": estimate(own[GAIN]).model_dump(), **difference}


def _abilities(sides: Sides) -> Iterator[tuple[str, Sides]]:
    """Each general ability alone that was forgotten, where there are several."""
    general = sides.defined(RETENTION)
    for role in general if len(general) > 1 else ():
        yield role, replace(sides, parts={role: PARTS[role], "domain": PARTS["domain"]})


def _along(curve: Floats, gains: Floats) -> Floats:
    """Retention of a curve of points (points x 2 x draws) at given gains, draw by draw."""
    found = np.empty_like(gains)
    for draw in range(len(gains)):
        order = np.argsort(curve[:, GAIN, draw])
        found[draw] = np.interp(gains[draw], curve[order, GAIN, draw], curve[order, RETENTION, draw])
    return found


def _difference(samples: Floats) -> dict[str, Any]:
    told = estimate(samples)
    return {"advantage": told.model_dump(), "draws": [round(float(one), 5) for one in samples[1 : KEPT_DRAWS + 1]]}
