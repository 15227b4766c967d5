"""One pair's comparison: every method's curve on held-out text, the search at every asked gain, and what it cost."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from benchmarks.evidence.plan import ASKED, PairName
from benchmarks.evidence.ruler import Ruler, load
from benchmarks.evidence.scoring import score
from benchmarks.evidence.train import COSTS, prepare
from worker.evaluation.auto import Auto, Outcome
from worker.evaluation.bootstrap import Floats, estimate
from worker.evaluation.candidates import Between
from worker.evaluation.controls import Candidate, Filtered, at_random, by_relative_change, dg_hard, uniform
from worker.evaluation.search import Objective
from worker.evaluation.sides import GAIN, RETENTION, Sheets, Sides
from worker.evaluation.trials import Trials
from worker.scores import Row, choose, rank
from worker.scores.selection import Rules

SEARCH = {"budget": 60, "most": 1.4, "curvature": "of the uniform curve"}
"""evaluations of the calibration set, for all asked gains together; the largest strength"""
CURVE = (0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
STRENGTHS = (0.75, 0.4, 0.0)
DRAWN = (0.75, 0.4)
"""strengths of random selections, and of all where the scores are not compared one by one"""
PRESETS = {"conservative": 0.10, "balanced": 0.25, "aggressive": 0.50}
SCORES = ("snr", "swci", "svdr")
KEPT_DRAWS = 500
"""of the bootstrap, in the results"""


def compare(pair: PairName) -> dict[str, Any]:
    """The pair's results, from the folder of results where they are known."""
    if pair.results.exists():
        known = dict(json.loads(pair.results.read_text()))
        if known.get("search_settings") == SEARCH:
            return known
        results = {**known, **_search_anew(pair, known)}
    else:
        prepare(pair)
        results = _compare(pair)
    pair.results.parent.mkdir(parents=True, exist_ok=True)
    pair.results.write_text(json.dumps(results))
    return results


def _search_anew(pair: PairName, known: Mapping[str, Any]) -> dict[str, Any]:
    """Where the settings of the search have changed since: only that part of the results."""
    base, adapted = load(pair.base), load(pair.adapted)
    between = Between(base, adapted)
    held_out = Ruler(between, domain=pair.domain, part="held_out")
    rows, others = score(base, adapted)
    curve = []
    for candidate in uniform(tuple(between.sizes), ts=CURVE):
        between.move(candidate.strengths)
        curve.append(({}, held_out.ask(between.model)))
    found, spent = _searched(between, pair, rows, others, curve=curve, held_out=held_out, sides=held_out.sides())
    return {**found, "costs": {**known["costs"], "search": spent}}


def _searched(
    between: Between, pair: PairName, rows: Sequence[Row], others: Sequence[Row], *,
    curve: Sequence[tuple[dict[str, Any], Sheets]], held_out: Ruler, sides: Sides,
) -> tuple[dict[str, Any], float]:  # fmt: skip
    """The search's part of the results, and its core-seconds."""
    began = time.process_time()
    outcome = _search(between, pair, start=_selection(rows, others, share=0.25))
    spent = time.process_time() - began
    auto = _auto(outcome, curve, ruler=held_out, sides=sides)
    return {"auto": auto, "spent": outcome.spent, "method": outcome.method, "search_settings": SEARCH}, spent


def _compare(pair: PairName) -> dict[str, Any]:
    base, adapted = load(pair.base), load(pair.adapted)
    between = Between(base, adapted)
    held_out = Ruler(between, domain=pair.domain, part="held_out")
    sides = held_out.sides()
    costs: dict[str, float] = {
        role: json.loads((folder / COSTS).read_text())["core_seconds"]
        for role, folder in (("pretraining", pair.base), ("adaptation", pair.adapted))
    }
    began = time.process_time()
    rows, others = score(base, adapted)
    costs["scoring"] = time.process_time() - began
    families = _families(between, rows, others, ruler=held_out, ablated=pair.ablated)
    found, costs["search"] = _searched(
        between, pair, rows, others, curve=families["uniform"], held_out=held_out, sides=sides
    )
    costs |= _merging(between, held_out)
    return {
        "pair": [pair.architecture, pair.domain, pair.seed], "costs": costs, "parameters": sum(between.sizes.values()),
        "losses": {role: [sides.base[role].mean, sides.adapted[role].mean] for role in sides.base},
        **_judged(families, sides=sides), **found,
    }  # fmt: skip


def _families(
    between: Between, rows: Sequence[Row], others: Sequence[Row], *, ruler: Ruler, ablated: bool
) -> dict[str, list[tuple[dict[str, Any], Sheets]]]:
    """The measured points by method."""
    model, families = Filtered(between), {}
    every = [*_candidates(between.sizes, rows, others, ablated=ablated), *(_ablation(rows, others) if ablated else ())]
    for family, candidate in every:
        model.move(candidate)
        facts = {"label": candidate.label, "seed": candidate.seed, "share": candidate.share(between.sizes),
                 "t": candidate.settings["t"]}  # fmt: skip
        families.setdefault(family, []).append((facts, ruler.ask(between.model)))
    return families


def _candidates(
    sizes: Mapping[str, int], rows: Sequence[Row], others: Sequence[Row], *, ablated: bool
) -> Iterator[tuple[str, Candidate]]:
    for candidate in uniform(tuple(sizes), ts=CURVE):
        yield "uniform", candidate
    for candidate in dg_hard(tuple(sizes)):
        yield "dg_hard", candidate
    aggressive = _selection(rows, others, share=0.5)
    for t in STRENGTHS if ablated else DRAWN:
        for preset, share in PRESETS.items():
            yield f"spear {preset}", _selected(f"spear {preset}", _selection(rows, others, share=share), t=t)
        rules = Rules(share=0.5, t=t)
        yield "relative_change", by_relative_change(rows, others=others, rules=rules)
    for t in DRAWN:
        for family, embedding in (("random", False), ("random_embedding", True)):
            for candidate in at_random(sizes, aggressive, t=t, embedding=embedding):
                yield f"{family} {candidate.seed}", candidate


def _ablation(rows: Sequence[Row], others: Sequence[Row]) -> Iterator[tuple[str, Candidate]]:
    """Each score alone and in pairs; swci with svdr is spear's own default, and measured as `spear aggressive`."""
    for count in (1, 2):
        for some in combinations(SCORES, count):
            if some != ("swci", "svdr"):
                family, weights = f"only {' + '.join(some)}", dict.fromkeys(some, 1.0)
                for t in STRENGTHS:
                    yield family, _selected(family, _selection(rows, others, share=0.5, weights=weights), t=t)


def _selection(
    rows: Sequence[Row], others: Sequence[Row], *, share: float, weights: Mapping[str, float] | None = None
) -> dict[str, float]:
    ranked = rank(rows, weights=weights or {"swci": 0.5, "svdr": 0.5})
    return choose(ranked, others=others, rules=Rules(share=share)).decisions


def _selected(family: str, names: Mapping[str, float], *, t: float) -> Candidate:
    return Candidate(
        name=family, label=f"{family}, t = {t:g}", strengths=dict.fromkeys(names, t), settings={"t": t}
    )


def _search(between: Between, pair: PairName, *, start: Mapping[str, float]) -> Outcome:
    """One search for the whole frontier, on calibration text alone."""
    ruler = Ruler(between, domain=pair.domain, part="calibration")
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
        ends = [sides.base, sides.adapted, *(sheets for _, sheets in members)]
        samples = sides.samples([*ends, ruler.ask(ruler.between.model)])
        own, reference = samples[-1], samples[:-1]
        found[str(choice.objective.least)] = {
            "retention": estimate(own[RETENTION]).model_dump(), "gain": estimate(own[GAIN]).model_dump(),
            "searched": choice.searched, "uniform_t": choice.uniform, "calibration": choice.values,
            "checked": choice.advantage, **_difference(own[RETENTION] - _along(reference, own[GAIN])),
        }  # fmt: skip
    return found


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
