"""From answer sheets to the tables of a study's report."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.recipes.study import Cell, StudyExpert
from worker.evaluation.bootstrap import Estimate, Floats, estimate, means
from worker.evaluation.sheets import Kind, Sheet
from worker.evaluation.studies import schema
from worker.evaluation.studies.answers import compare, right
from worker.evaluation.studies.choice import choose, places, seeds, spread
from worker.evaluation.studies.gains import (
    About,
    Margins,
    by_domain,
    margins,
    over_datasets,
    over_tasks,
    share,
)
from worker.evaluation.studies.relations import correlations, pairs
from worker.evaluation.studies.results import Results
from worker.evaluation.studies.similarity import Gram


def chosen_cells(results: Results) -> dict[tuple[int, tuple[int, ...], str], Cell]:
    """Of each stage, set of experts and method, the settings that calibration chose (the only ones without it)."""
    found = {}
    for place, cells in places(results.study.cells()).items():
        merit = results.merit(cells, of=results.calibration or results.held_out)
        found[place] = choose(cells, merit)
    return found


def build(
    results: Results, gram: Gram, *, job_id: str, commits: Sequence[str], settings: Mapping[str, Any],
    warnings: Sequence[str], engine: Mapping[str, str], costs: Mapping[str, Any],
) -> schema.Study:
    """The whole report but for the pictures' words. `commits` are the base's, then the experts'."""
    study, seed = results.study, results.study.evaluation.seed
    chosen = chosen_cells(results)
    outcomes = tuple(_outcome(results, cell, seed=seed) for cell in chosen.values())
    return schema.Study(
        verdict=verdict(outcomes, main_kind=results.main_kind),
        job={"id": job_id}, recipe=study.model_dump(mode="json"), main_kind=results.main_kind,
        gain_reference=study.gain_reference, tasks=tuple(_task_rows(results)),
        models=tuple(_model_rows(results, gram, commits=commits, seed=seed)),
        cells=tuple(_cell_row(results, cell) for cell in study.cells()), outcomes=outcomes,
        pairs=tuple(pairs(results, gram)), correlations=tuple(correlations(results, outcomes, gram)),
        publications=tuple(_publications(results, chosen)), answers=_answers(results, chosen.values()), figures={},
        settings=dict(settings), warnings=tuple(warnings), engine=dict(engine), costs=dict(costs),
    )  # fmt: skip


def verdict(outcomes: Sequence[schema.Outcome], *, main_kind: Kind) -> str:
    """One sentence for each stage: its best merge."""
    told = []
    unit = "" if main_kind == "score" else " nats/token"
    for stage, name in ((1, "base and one expert"), (2, "pairs"), (3, "all experts")):
        some = [one for one in outcomes if one.stage == stage and main_kind in one.macro]
        if some:
            best = max(some, key=lambda one: one.macro[main_kind].gain.value or 0.0)
            figures = best.macro[main_kind]
            who = " + ".join(best.experts)
            told.append(
                f"Stage {stage} ({name}): best is {who} by {best.method}, Gain {figures.gain.value:+.4f}{unit}, "
                f"OG {figures.og.value:+.4f}{unit}."
            )
    return " ".join(told)


def _task_rows(results: Results) -> list[schema.TaskRow]:
    rows = []
    for on, measured in (("held_out", results.held_out), ("calibration", results.calibration)):
        for about in measured.tasks if measured else ():
            assert measured
            sheet = measured.models[0][about.task]
            rows.append(schema.TaskRow.model_validate({
                "task": about.task, "on": on, "role": about.role, "domain": about.domain, "dataset": about.dataset,
                "kind": about.kind, "metric": sheet.metric, "unit": sheet.unit, "items": len(sheet.items),
            }))  # fmt: skip
    return rows


def _model_rows(results: Results, gram: Gram, *, commits: Sequence[str], seed: int) -> list[schema.ModelRow]:
    study = results.study
    rows = []
    for number, model in enumerate((study.base, *study.experts)):
        sheets = results.held_out.models[number]
        rows.append(schema.ModelRow(
            number=number, repo=model.repo, revision=model.revision, commit=commits[number],
            domain=model.domain if isinstance(model, StudyExpert) else None,
            norm=gram.norm(number - 1) if number else None,
            scores={task: _scored(sheet, seed=seed) for task, sheet in sheets.items()},
        ))  # fmt: skip
    return rows


def _scored(sheet: Sheet, *, seed: int) -> Estimate:
    return estimate(means([sheet], seed=seed)[0] * (1 if sheet.kind == "score" else -1))


def _cell_row(results: Results, cell: Cell) -> schema.CellRow:
    row = results.row(cell, of=results.held_out)
    calibrated = results.calibration and results.row(cell, of=results.calibration).macro_gain
    return schema.CellRow(
        key=cell.key, stage=cell.stage, experts=_repos(results, cell), method=cell.method,
        settings=dict(cell.settings), scores=row.scores, gain=row.gain, og=row.og, macro_gain=row.macro_gain,
        macro_og=row.macro_og, macro_gain_datasets=row.macro_gain_datasets, macro_og_datasets=row.macro_og_datasets,
        calibration_gain=calibrated, emerged=row.emerged, lost=row.lost,
    )


def _outcome(results: Results, cell: Cell, *, seed: int) -> schema.Outcome:
    held = results.held_out
    siblings = places(results.study.cells())[cell.place]
    merit = results.merit(siblings, of=held)
    by_task = {about.task: margins(results.setup(cell, about.task, of=held), seed=seed) for about in held.tasks}
    row = results.row(cell, of=held)
    calibrated = results.calibration and results.merit([cell], of=results.calibration)[cell.key]
    names = [results.study.base.repo, *(expert.repo for expert in results.study.experts)]
    return schema.Outcome(
        stage=cell.stage, experts=_repos(results, cell), constituents=tuple(names[i] for i in cell.constituents),
        method=cell.method, settings=dict(cell.settings), key=cell.key,
        chosen_on="calibration" if len({one.unseeded for one in siblings}) > 1 else "nothing",
        macro=_macro(by_task, over_tasks, held.tasks), macro_datasets=_macro(by_task, over_datasets, held.tasks),
        domains=_domains(by_task, held.tasks), tasks=tuple(_on_tasks(results, cell, by_task)),
        shares=tuple(_shares(results, cell, seed=seed)), emerged=row.emerged, lost=row.lost, items=row.items,
        calibration_gain=calibrated, sensitivity=spread(siblings, merit), seeds=seeds(siblings, cell, merit),
    )  # fmt: skip


def _figures(score: Floats, gain: Floats, og: Floats) -> schema.Figures:
    return schema.Figures(score=estimate(score), gain=estimate(gain), og=estimate(og))


def _macro(by_task: Mapping[str, Margins], mean: Any, tasks: Sequence[About]) -> dict[str, schema.Figures]:
    parts = [
        mean({task: getattr(found, part) for task, found in by_task.items()}, tasks) for part in ("score", "gain", "og")
    ]
    return {kind: _figures(*(part[kind] for part in parts)) for kind in parts[0]}


def _domains(by_task: Mapping[str, Margins], tasks: Sequence[About]) -> dict[str, dict[str, schema.Figures]]:
    parts = [
        by_domain({task: getattr(found, part) for task, found in by_task.items()}, tasks)
        for part in ("score", "gain", "og")
    ]
    return {
        domain: {kind: _figures(*(part[domain][kind] for part in parts)) for kind in kinds}
        for domain, kinds in parts[0].items()
    }


def _on_tasks(results: Results, cell: Cell, by_task: Mapping[str, Margins]) -> list[schema.TaskFigures]:
    rows = []
    for task, found in by_task.items():
        setup = results.setup(cell, task, of=results.held_out)
        rows.append(schema.TaskFigures(
            task=task, figures=_figures(found.score, found.gain, found.og),
            answers=compare(setup.merged, setup.parents),
        ))  # fmt: skip
    return rows


def _shares(results: Results, cell: Cell, *, seed: int) -> list[schema.Share]:
    """Of every expert that went in, what is kept of its gain in its own domain."""
    held, rows = results.held_out, []
    for number in cell.experts:
        expert = results.study.experts[number]
        kinds: dict[Kind, list[str]] = {}
        for about in held.tasks:
            if about.role == "domain" and about.domain == expert.domain:
                kinds.setdefault(about.kind, []).append(about.task)
        for kind, tasks in kinds.items():
            models = (held.models[0], held.models[number + 1], held.cells[cell.key])
            kept = share(*([sheets[task] for task in tasks] for sheets in models), seed=seed)
            rows.append(schema.Share(expert=expert.repo, domain=str(expert.domain), kind=kind, share=estimate(kept)))
    return rows


def _publications(
    results: Results, chosen: Mapping[tuple[int, tuple[int, ...], str], Cell]
) -> list[schema.Published]:
    rows = []
    for one in results.study.publish:
        cells = results.study.named(one)
        cell = chosen[cells[0].place] if one.settings == "chosen" else cells[0]
        rows.append(schema.Published(key=cell.key, target=one.target.repo, branch=one.target.branch))
    return rows


def _answers(results: Results, chosen: Any) -> dict[str, dict[str, str]]:
    names = [results.study.base.repo, *(expert.repo for expert in results.study.experts)]
    found: dict[str, dict[str, str]] = {}
    for about in results.held_out.tasks:
        if about.kind == "score":
            sheets = {names[i]: sheets[about.task] for i, sheets in results.held_out.models.items()}
            sheets |= {cell.key: results.held_out.cells[cell.key][about.task] for cell in chosen}
            found[about.task] = {name: _bits(sheet) for name, sheet in sheets.items()}
    return found


def _bits(sheet: Sheet) -> str:
    return "".join("1" if is_right else "0" for is_right in right(sheet))


def _repos(results: Results, cell: Cell) -> tuple[str, ...]:
    return tuple(results.study.experts[number].repo for number in cell.experts)
