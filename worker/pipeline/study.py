"""A study's computing: base and experts are asked, then every cell, merged in memory and never written.

Each finished cell is one line of a journal in the job's directory: a killed study goes on with the next cell.
"""

import resource
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import torch

from app.recipes.catalogue import leaves
from app.recipes.evaluation import FileTask
from app.recipes.study import Cell, Study
from worker.checkpoints.reader import Checkpoint
from worker.checkpoints.vocabulary import open_models
from worker.evaluation.answers import document
from worker.evaluation.studies.gains import About
from worker.evaluation.studies.report import build, chosen_cells
from worker.evaluation.studies.results import Measured, Results
from worker.evaluation.studies.similarity import Gram
from worker.evaluation.studies.write import write
from worker.isolation import has_network
from worker.methods.base import CHUNK
from worker.pipeline.cellbook import Cellbook
from worker.pipeline.evaluate import Evaluator, prepare
from worker.pipeline.live import Live
from worker.pipeline.meter import Meter
from worker.pipeline.score import device_of
from worker.pipeline.task import Task
from worker.report.engine import cpu_name, engine
from worker.report.manifest import canonical

if TYPE_CHECKING:  # they need lm-eval, which is an extra
    from worker.evaluation.language_model import LanguageModel
    from worker.evaluation.preparation import Ready
    from worker.evaluation.sheets import Sheet

JOURNAL = "study.journal"
_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})


def run_study(task: Task, meter: Meter) -> dict[str, Any]:
    """Everything that the study leaves in `task.work_dir`: report, sheets, exports; the summary for the supervisor."""
    evaluator = prepare(task, meter)
    assert evaluator is not None  # a study always measures
    models = _ask_models(evaluator, meter)
    gram = _compare(task, meter)
    cells = _ask_cells(task, evaluator, models[0], meter)
    results = _results(task, evaluator, models, cells)
    meter.stage("reporting", total=1, unit="reports")
    report = build(
        results, gram, job_id=task.job_id, commits=[source.commit for source in task.inputs],
        settings={"limit": evaluator.evaluation.limit, "seed": evaluator.evaluation.seed, "device": evaluator.device},
        warnings=task.warnings, engine=engine(device=evaluator.device), costs=_costs(task, meter),
    )
    (task.work_dir / "sheets.json").write_bytes(canonical(_kept_sheets(results)))
    write(report, folder=task.work_dir)
    meter.step(done=1, name="report", cells=len(cells))
    return {"selected": 0, "scored": 0, "metrics": _metrics(results)}


def _study(task: Task) -> Study:
    assert isinstance(task.recipe, Study)
    return task.recipe


def _readies(evaluator: Evaluator) -> "tuple[Ready, ...]":
    return (*evaluator.benches.held_out, *evaluator.benches.calibration)


def _ask_models(evaluator: Evaluator, meter: Meter) -> "list[dict[str, Sheet]]":
    """The base's sheets, then each expert's; those known from elsewhere are not asked for again."""
    readies, subjects = _readies(evaluator), evaluator.subjects()
    meter.stage("evaluating", total=len(readies) * len(subjects), unit="tasks")
    done = 0

    def answered(one: "Ready") -> None:
        nonlocal done
        done += 1
        meter.step(done=done, name=one.label)

    return [evaluator.sheets(subject, readies, told=meter.beat, answered=answered) for subject in subjects]


def _compare(task: Task, meter: Meter) -> Gram:
    """Inner products of the experts' task vectors, over the tensors that all models have in one shape."""
    gram = Gram(len(task.experts))
    with ExitStack() as stack:
        models = open_models([(one.repo, one.path) for one in task.inputs], vocabulary=None)
        for model in models:
            stack.callback(model.close)
        names = [name for name in models[0].tensors if _everywhere(name, models)]
        meter.stage("comparing", total=len(names), unit="tensors")
        for done, name in enumerate(names, start=1):
            parts = (torch.split(model.read(name).reshape(-1), CHUNK) for model in models)
            for base, *experts in zip(*parts, strict=True):
                gram.add(base, experts)
            meter.step(done=done, name=name)
    return gram


def _everywhere(name: str, models: Sequence[Checkpoint]) -> bool:
    """Whether all models have a tensor of that name and shape, of numbers with a fraction."""
    found = [model.tensors.get(name) for model in models]
    return all(info and info.dtype in _FLOATS and info.shape == models[0].tensors[name].shape for info in found)


def _ask_cells(
    task: Task, evaluator: Evaluator, base: "Mapping[str, Sheet]", meter: Meter
) -> "dict[str, dict[str, Sheet]]":
    cells, readies = _study(task).cells(), _readies(evaluator)
    book = Cellbook(task.work_dir / JOURNAL, plan=_plan(task, evaluator), like=base)
    meter.stage("sweeping", total=len(cells), unit="merges")
    done = sum(cell.key in book.found for cell in cells)
    if done:
        meter.step(done=done, name=f"{done} merges measured before", resumed=done)
    left = [cell for cell in cells if cell.key not in book.found]
    if left:
        for cell, model in _models(task, evaluator, left, told=meter.beat):
            book.keep(cell.key, {one.label: one.bench.ask(model) for one in readies})
            done += 1
            meter.step(done=done, name=cell.key)
    return {cell.key: book.found[cell.key] for cell in cells}


def _models(
    task: Task, evaluator: Evaluator, cells: Sequence[Cell], *, told: Callable[[], None]
) -> "Iterator[tuple[Cell, LanguageModel]]":
    """Each cell with the model that it makes, which has the last expert's tokenizer, as its merge would have."""
    from worker.evaluation.language_model import LanguageModel  # noqa: PLC0415  (lm-eval is an extra)
    from worker.evaluation.loading import load_tokenizer  # noqa: PLC0415

    with evaluator.loaded(evaluator.subjects()[0]) as loaded:
        live = Live(loaded.model)
        asked: dict[int, LanguageModel] = {}
        for cell in cells:
            last = cell.experts[-1]
            if last not in asked:
                source = task.experts[last]
                tokenizer = load_tokenizer(source.path, repo=source.repo, base=task.base.path)
                asked[last] = LanguageModel(live.model, tokenizer, told=told)
            live.become(_cell_task(task, cell))
            yield cell, asked[last]


def _cell_task(task: Task, cell: Cell) -> Task:
    """The merge task of one cell."""
    inputs = (task.base, *(task.experts[number] for number in cell.experts))
    return task.model_copy(update={"recipe": _study(task).recipe(cell), "inputs": inputs})


def _plan(task: Task, evaluator: Evaluator) -> str:
    """SHA-256 of all that the cells' sheets depend on, but for the cells themselves."""
    sources = [(one.repo, one.commit, sorted(one.digests.items())) for one in task.inputs]
    tasks = [(one.label, one.digest) for one in _readies(evaluator)]
    about = [sources, tasks, evaluator.settings, _study(task).model_dump(mode="json"), torch.__version__]
    return sha256(canonical({"plan": about})).hexdigest()


def _results(
    task: Task, evaluator: Evaluator, models: "Sequence[Mapping[str, Sheet]]",
    cells: "Mapping[str, Mapping[str, Sheet]]",
) -> Results:
    def measured(readies: "Sequence[Ready]", general: "Sequence[Ready]") -> Measured:
        roles = {one.label: "general" if one in general else "domain" for one in readies}
        abouts = tuple(_about(one, role=roles[one.label], kind=models[0][one.label].kind) for one in readies)
        return Measured(
            tasks=abouts,
            models={i: {one.label: sheets[one.label] for one in readies} for i, sheets in enumerate(models)},
            cells={key: {one.label: sheets[one.label] for one in readies} for key, sheets in cells.items()},
        )

    benches = evaluator.benches
    calibration = measured(benches.calibration, benches.calibration_general) if benches.calibration else None
    return Results(study=_study(task), held_out=measured(benches.held_out, benches.general), calibration=calibration)


def _about(one: "Ready", *, role: str, kind: Any) -> About:
    dataset = one.task.repo if isinstance(one.task, FileTask) else _dataset(one.task.task)
    domain = one.task.ability or role
    return About(task=one.label, role=role, domain=domain, dataset=dataset, kind=kind)


def _dataset(name: str) -> str:
    """The data set of a registered task; of a group over several, the group itself."""
    found = {leaf.dataset for leaf in leaves(name)}
    return found.pop() if len(found) == 1 else name


def _kept_sheets(results: Results) -> dict[str, Any]:
    """Answers of the models and of the chosen merges on the tasks reported on."""
    study, held = results.study, results.held_out
    names = [study.base.repo, *(expert.repo for expert in study.experts)]
    chosen = chosen_cells(results).values()
    return document(
        {names[i]: sheets for i, sheets in held.models.items()} | {cell.key: held.cells[cell.key] for cell in chosen}
    )


def _metrics(results: Results) -> dict[str, Any]:
    return {"cells": len(results.held_out.cells), "experts": len(results.study.experts)}


def _costs(task: Task, meter: Meter) -> dict[str, Any]:
    peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {
        "device": device_of(task), "peak_rss_bytes": max(peaks) * 1024, "network": has_network(), "cpu": cpu_name(),
        "attempt": task.attempt, **meter.facts(),
    }  # fmt: skip
