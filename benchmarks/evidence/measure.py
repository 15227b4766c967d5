"""One pair measured: every rival on held-out text, the search on calibration text, what it chose, and what it cost.

What models answered is kept item by item, so that all figures can be told from it again (`judge`).
"""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.evidence.kits import SMALL, Kit
from benchmarks.evidence.plan import ASKED, PairName
from benchmarks.evidence.rivals import candidates, selection
from benchmarks.evidence.ruler import Ruler
from benchmarks.evidence.scoring import score
from benchmarks.evidence.train import COSTS
from worker.evaluation.auto import Auto, Outcome
from worker.evaluation.candidates import Between
from worker.evaluation.controls import Filtered
from worker.evaluation.search import Objective
from worker.evaluation.sides import Sheets
from worker.evaluation.trials import Trials
from worker.scores import Row

SEARCH = {"budget": 60, "most": 2.0}
"""evaluations of the calibration set, for all asked gains together; the largest strength"""
Measured = dict[str, Any]


def measure(pair: PairName, kit: Kit = SMALL) -> Measured:
    """The pair's answers: from its file what is known, and with the settings of the search that hold now."""
    known = json.loads(pair.measured.read_text()) if pair.measured.exists() else {}
    if known.get("search", {}).get("settings") == SEARCH:
        return dict(known)
    kit.prepare(pair)
    base, adapted = kit.load(pair.base), kit.load(pair.adapted)
    between = Between(base, adapted)
    held_out, calibration = (Ruler(between, kit.texts(pair, part)) for part in ("held_out", "calibration"))
    began = time.process_time()
    rows, others = score(base, adapted)
    scoring = time.process_time() - began
    if "families" not in known:
        known = _rivals(pair, held_out, rows, others)
        known["costs"]["scoring"] = scoring
        _keep(pair, known)
    known["search"] = _searched(pair, calibration, held_out, start=selection(rows, others, share=0.25))
    _keep(pair, known)
    return known


def _keep(pair: PairName, known: Measured) -> None:
    pair.measured.parent.mkdir(parents=True, exist_ok=True)
    pair.measured.write_text(json.dumps(known))


def _rivals(pair: PairName, ruler: Ruler, rows: Sequence[Row], others: Sequence[Row]) -> Measured:
    """Both ends and the points by method."""
    between, families = ruler.between, dict[str, list[dict[str, Any]]]()
    sides, model = ruler.sides(), Filtered(between)
    for family, candidate in candidates(between.sizes, rows, others, ablated=pair.ablated):
        model.move(candidate)
        families.setdefault(family, []).append({
            "label": candidate.label, "seed": candidate.seed, "share": candidate.share(between.sizes),
            "t": candidate.settings["t"], "answers": answers(ruler.ask(between.model)),
        })  # fmt: skip
    return {
        "pair": [pair.architecture, pair.domain, pair.seed], "parameters": sum(between.sizes.values()),
        "costs": _trained(pair) | _merging(ruler), "ends": [answers(sides.base), answers(sides.adapted)],
        "families": families,
    }  # fmt: skip


def answers(sheets: Sheets) -> dict[str, list[float]]:
    """Nats of each block by role."""
    return {role: list(sheet.values) for role, sheet in sheets.items()}


def _trained(pair: PairName) -> dict[str, float]:
    """Core-seconds of the training, where they were counted."""
    folders = {"pretraining": pair.base, "adaptation": pair.adapted}
    return {
        role: json.loads((folder / COSTS).read_text())["core_seconds"]
        for role, folder in folders.items() if (folder / COSTS).exists()
    }  # fmt: skip


def _merging(ruler: Ruler) -> dict[str, float]:
    began = time.process_time()
    ruler.between.move(dict.fromkeys(ruler.names, 0.5))
    merging = time.process_time() - began
    began = time.process_time()
    ruler.ask(ruler.between.model)
    return {"merging": merging, "evaluation": time.process_time() - began}


def _searched(pair: PairName, calibration: Ruler, held_out: Ruler, *, start: Mapping[str, float]) -> Measured:
    """The search on calibration text, and what held-out text says of its choices."""
    began = time.process_time()
    outcome = _search(calibration, pair, start=start)
    spent = time.process_time() - began
    choices = {}
    for choice in outcome.choices:
        held_out.between.move(choice.strengths)
        choices[str(choice.objective.least)] = {
            "strengths": choice.strengths, "searched": choice.searched, "uniform_t": choice.uniform,
            "calibration": choice.values, "checked": choice.advantage,
            "answers": answers(held_out.ask(held_out.between.model)),
        }  # fmt: skip
    return {
        "settings": SEARCH, "spent": outcome.spent, "method": outcome.method, "core_seconds": spent,
        "choices": choices,
    }  # fmt: skip


def _search(ruler: Ruler, pair: PairName, *, start: Mapping[str, float]) -> Outcome:
    """One search for the whole frontier, on calibration text alone."""
    sides = {"search": ruler.sides("search"), "check": ruler.sides("check")}
    auto = Auto(Trials(ruler), sides, SEARCH["budget"], most=SEARCH["most"], seed=pair.seed)
    return auto.run([Objective("retention", least) for least in sorted(ASKED, reverse=True)], starts=[start])
