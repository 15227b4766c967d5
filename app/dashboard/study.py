"""What a study's report says, as charts and tables (the shape is `worker/evaluation/studies/schema.py`). Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
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
    correlations: Sequence[Mapping[str, Any]]


def study_of(report: Report | None) -> StudyView | None:
    """None where the report is none of a study."""
    if not report or report.get("kind") != "study":
        return None
    outcomes = sorted(report.get("outcomes") or (), key=lambda one: (one["stage"], one["experts"], one["method"]))
    stages = [_stage(report, number, list(found)) for number, found in groupby(outcomes, key=lambda one: one["stage"])]
    return StudyView(stages=stages, sheets=list(_sheets(report)), correlations=report.get("correlations") or ())


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
                     "figures": (one.get("macro") or {}).get(report.get("main_kind")) or {}}
        for one in outcomes
    ]  # fmt: skip
    matrices = [chart for measure in MEASURES for kind in ("score", "loss")
                if (chart := matrix_chart(_matrix(report, outcomes, measure=measure, kind=kind)))]  # fmt: skip
    return Stage(title=STAGES.get(number, f"Stage {number}"), outcomes=rows, matrices=matrices,
                 sweeps=[sweep_chart(sweep) for sweep in _sweeps(report, number)])  # fmt: skip


def _matrix(report: Report, outcomes: Sequence[Mapping[str, Any]], *, measure: str, kind: str) -> Matrix:
    tasks = [t for t in report.get("tasks") or () if t["on"] == "held_out" and t["kind"] == kind]
    factor, unit = (100.0, "points") if kind == "score" else (1.0, "nats per token")
    found = [{task["task"]: task["figures"][measure]["value"] for task in one["tasks"]} for one in outcomes]
    values = [[None if (v := row.get(t["task"])) is None else factor * v for t in tasks] for row in found]
    return Matrix(
        rows=[name_of(one["experts"], one["method"]) for one in outcomes], columns=[t["task"] for t in tasks],
        values=values, label=MEASURES[measure], unit=unit,
    )  # fmt: skip


def _sweeps(report: Report, stage: int) -> Iterator[Sweep]:
    """Macro-Gain over each setting that takes several values; other settings that vary make lines of their own."""
    cells = [cell for cell in report.get("cells") or () if cell["stage"] == stage]
    kind = report.get("main_kind") or "score"
    for setting in sorted({name for cell in cells for name in cell["settings"]} - {"seed"}):
        lines: dict[str, list[tuple[float, float]]] = {}
        for cell in cells:
            if setting in cell["settings"] and kind in cell["macro_gain"]:
                point = (cell["settings"][setting], cell["macro_gain"][kind] * (100 if kind == "score" else 1))
                lines.setdefault(_line(cell, but=setting), []).append(point)
        series = [
            Series(name=name, x=[x for x, _ in sorted(points)], y=[y for _, y in sorted(points)])
            for name, points in lines.items()
            if len({x for x, _ in points}) > 1
        ]
        if series:
            unit = "points" if kind == "score" else "nats per token"
            yield Sweep(series=series[:12], across=setting, up=f"Macro-Gain, {unit}")


def _line(cell: Mapping[str, Any], *, but: str) -> str:
    rest = {name: value for name, value in cell["settings"].items() if name != but}
    return name_of(cell["experts"], cell["method"]) + (f", {settings_of(rest)}" if rest else "")


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
