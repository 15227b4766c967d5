"""What a study's report says, as charts and tables (the shape is `worker/evaluation/studies/schema.py`). Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean
from typing import Any

from app.dashboard.charts import (
    AnswerSheet,
    Matrix,
    Series,
    Sweep,
    answer_sheet_chart,
    matrix_chart,
    sweep_chart,
)
from app.dashboard.charts.matrix import Answer

Report = Mapping[str, Any]
STAGES = {1: "Stage 1: base and one expert (recovery)", 2: "Stage 2: pairs (complementarity)",
          3: "Stage 3: all experts (emergence)"}  # fmt: skip
MEASURES = {"gain": "Gain: against the constituents' mean", "og": "OG: against the best constituent"}
UNITS = {"score": "points", "loss": "nats per token"}
SHEETS = 12
"""tasks whose answer sheets are drawn; the others stand in the report"""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage: its chosen merges, and what they did on each task."""

    title: str
    outcomes: Sequence[Mapping[str, Any]]
    matrices: Sequence[str]
    sweeps: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class StudyView:
    """All that the page shows of a study."""

    stages: Sequence[Stage]
    sheets: Sequence[tuple[str, str]]
    unit: str
    """of Macro-Gain and Macro-OG"""
    pairs: Sequence[tuple[str, Mapping[str, Any]]]
    """experts' task vectors two by two: their names, `l2` and `cosine`"""
    correlations: Sequence[Mapping[str, Any]]
    """those that have enough merges to tell one"""


def study_of(report: Report | None) -> StudyView | None:
    """None where the report is none of a study."""
    if not report or report.get("kind") != "study":
        return None
    outcomes = sorted(report.get("outcomes") or (), key=lambda one: (one["stage"], one["experts"], one["method"]))
    stages = [_stage(report, number, list(found)) for number, found in groupby(outcomes, key=lambda one: one["stage"])]
    known = [one for one in report.get("correlations") or () if (one.get("rank") or {}).get("rho") is not None]
    return StudyView(
        stages=stages, sheets=list(_sheets(report)), unit=UNITS[report.get("main_kind") or "score"], correlations=known,
        pairs=[(name_of(pair["experts"]), pair) for pair in report.get("pairs") or ()],
    )  # fmt: skip


def name_of(experts: Sequence[str], method: str = "") -> str:
    """Repositories by their last parts, with the method."""
    short = " + ".join(repo.rpartition("/")[2] for repo in experts)
    return f"{method}: {short}" if method else short


def settings_of(settings: Mapping[str, Any]) -> str:
    """Settings in one line."""
    return ", ".join(f"{name} {value:g}" for name, value in settings.items()) or "-"


def _stage(report: Report, number: int, outcomes: list[Mapping[str, Any]]) -> Stage:
    rows = [
        dict(one) | {"name": name_of(one["experts"], one["method"]), "how": settings_of(one["settings"]),
                     "figures": _figures(one, report.get("main_kind") or "score")}
        for one in outcomes
    ]  # fmt: skip
    matrices = [chart for measure in MEASURES for kind in ("score", "loss")
                if (chart := matrix_chart(_matrix(report, outcomes, measure=measure, kind=kind)))]  # fmt: skip
    return Stage(title=STAGES.get(number, f"Stage {number}"), outcomes=rows, matrices=matrices,
                 sweeps=[sweep_chart(sweep) for sweep in _sweeps(report, number)])  # fmt: skip


def _figures(outcome: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Macro-Gain and Macro-OG of the main kind, and the Macro-Gain that the settings were chosen by, in `UNITS`."""
    factor = 100.0 if kind == "score" else 1.0
    macro = (outcome.get("macro") or {}).get(kind) or {}
    found = {name: {end: factor * v for end, v in macro[name].items() if v is not None} for name in MEASURES
             if (macro.get(name) or {}).get("value") is not None}  # fmt: skip
    chosen = outcome.get("calibration_gain")
    return {name: {"low": None, "high": None} | one for name, one in found.items()} | (
        {"calibration": {"value": factor * chosen, "low": None, "high": None}} if chosen is not None else {}
    )


def _matrix(report: Report, outcomes: Sequence[Mapping[str, Any]], *, measure: str, kind: str) -> Matrix:
    tasks = [t for t in report.get("tasks") or () if t["on"] == "held_out" and t["kind"] == kind]
    factor = 100.0 if kind == "score" else 1.0
    found = [{task["task"]: task["figures"][measure]["value"] for task in one["tasks"]} for one in outcomes]
    values = [[None if (v := row.get(t["task"])) is None else factor * v for t in tasks] for row in found]
    return Matrix(
        rows=[name_of(one["experts"], one["method"]) for one in outcomes], columns=[t["task"] for t in tasks],
        values=values, label=MEASURES[measure], unit=UNITS[kind],
    )  # fmt: skip


def _sweeps(report: Report, stage: int) -> Iterator[Sweep]:
    """Of each set of experts, Macro-Gain over each setting that takes several values."""
    kind = report.get("main_kind") or "score"
    cells = [cell for cell in report.get("cells") or () if cell["stage"] == stage and kind in cell["macro_gain"]]
    for experts in dict.fromkeys(tuple(cell["experts"]) for cell in cells):
        own = [cell for cell in cells if tuple(cell["experts"]) == experts]
        for setting in sorted({name for cell in own for name in cell["settings"]} - {"seed"}):
            series = list(_lines([cell for cell in own if setting in cell["settings"]], setting=setting, kind=kind))
            if series:
                up = f"Macro-Gain, {UNITS[kind]}: {name_of(experts)}"
                yield Sweep(series=series, across=setting, up=up)


def _lines(cells: Sequence[Mapping[str, Any]], *, setting: str, kind: str) -> Iterator[Series]:
    """A line for each method and each choice of its other settings; of several seeds the mean."""
    lines: dict[str, dict[float, list[float]]] = {}
    for cell in cells:
        rest = {name: value for name, value in cell["settings"].items() if name not in (setting, "seed")}
        name = cell["method"] + (f", {settings_of(rest)}" if rest else "")
        value = cell["macro_gain"][kind] * (100 if kind == "score" else 1)
        lines.setdefault(name, {}).setdefault(cell["settings"][setting], []).append(value)
    for name, points in lines.items():
        if len(points) > 1:
            yield Series(name=name, x=sorted(points), y=[fmean(points[x]) for x in sorted(points)])


def _sheets(report: Report) -> Iterator[tuple[str, str]]:
    """Task by task, items sorted by how many models answer them rightly, the easiest first."""
    names = {cell["key"]: name_of(cell["experts"], cell["method"]) for cell in report.get("cells") or ()}
    parents = {model["repo"] for model in report.get("models") or ()}
    for task, sheets in list((report.get("answers") or {}).items())[:SHEETS]:
        models = sorted(sheets, key=lambda name: name not in parents)
        items = max((len(sheet) for sheet in sheets.values()), default=0)
        order = sorted(range(items), key=lambda i: -sum(sheet[i : i + 1] == "1" for sheet in sheets.values()))
        of = [sheets[name] for name in models if name in parents]
        answers = [[_answer(sheets[name], i, of=() if name in parents else of) for i in order] for name in models]
        shown = [names.get(name, name.rpartition("/")[2]) for name in models]
        yield task, answer_sheet_chart(AnswerSheet(models=shown, answers=answers, label=task))


def _answer(sheet: str, item: int, *, of: Sequence[str]) -> Answer:
    """Of a merge against all parents of the study: won where all of them are wrong, lost where all are right."""
    right, parents = sheet[item] == "1", {parent[item] for parent in of}
    if right:
        return "won" if parents == {"0"} else "right"
    return "lost" if parents == {"1"} else "wrong"
