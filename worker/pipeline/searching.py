"""The stage `searching`: the strengths of `policy: auto`, found between the two loaded models on calibration tasks."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from app.errors import Code, SpearError
from app.recipes.methods.spear import AutoSearch
from worker.pipeline.evaluate import Evaluator, Subject
from worker.pipeline.score import parameters
from worker.pipeline.select import unscored
from worker.pipeline.task import Reporter
from worker.report import schema
from worker.scores import Row, Selection
from worker.scores.selection import shares

if TYPE_CHECKING:  # they need lm-eval, which is an extra
    from worker.evaluation.auto import Choice, Outcome
    from worker.evaluation.candidates import Between
    from worker.evaluation.crew import Crew
    from worker.evaluation.trials import Stretch
    from worker.evaluation.yardstick import BenchYardstick

JOURNAL = "search.journal"
"""the search's trials of all attempts, in the job's directory"""
DIGITS = 4
_FP32 = 4
_LOGITS = 12
"""bytes for each of a batch's logits: as they are, their exponentials, their gradient"""


@dataclass(kw_only=True)
class Found:
    """What the search came to."""

    selection: Selection
    facts: dict[str, Any]
    """for the report: objective, budget, what was spent, strengths by group, the curve, what was chosen and why"""
    points: tuple[schema.Point, ...]
    """on calibration text"""
    frontier: dict[str, dict[str, float]] = field(default_factory=dict)
    """strengths of the other points of a frontier, by label"""
    warnings: list[str] = field(default_factory=list)


def search(evaluator: Evaluator, selection: Selection, reporter: Reporter) -> Found:
    """Search as the recipe says; `selection` is by score, and one of the points to start from.

    Raises `SpearError`: `task_unsupported` where base and adapted model do equally well on the calibration tasks,
    `model_unsupported` where transformers names weights otherwise than the files do.
    """
    from threadpoolctl import threadpool_limits  # noqa: PLC0415

    from worker.evaluation.auto import Auto  # noqa: PLC0415  (lm-eval is an extra)
    from worker.evaluation.trials import Ask, Trials  # noqa: PLC0415

    asked = parameters(evaluator.task).searching
    assert asked is not None
    reporter.stage("searching", total=float(asked.budget), unit="evaluations")
    with pair(evaluator) as (between, tokenizer), crew_for(evaluator, between, slopes=True) as crew:
        _check_names(evaluator, between)
        yardstick = _yardstick(evaluator, between, tokenizer, crew)
        stretches: tuple[Stretch, ...] = ("search", "check")
        ahead = yardstick.measure_all if crew.size > 1 else None
        trials = Trials(yardstick, journal=evaluator.task.work_dir / JOURNAL, ahead=ahead)
        crew.start(yardstick.perform)
        trials.foresee([Ask(end, stretch) for stretch in stretches for end in yardstick.ends])
        sides = {each: yardstick.sides(each, seed=evaluator.evaluation.seed, ask=trials.end) for each in stretches}
        _check_sides(sides["search"])
        auto = Auto(
            trials, sides, asked.budget, method=_method(asked, yardstick), most=asked.most,
            seed=evaluator.evaluation.seed,
            told=lambda: reporter.step(done=min(trials.spent, asked.budget), name=f"{trials.spent:.1f} evaluations"),
        )
        start = {name: t for name, t in selection.decisions.items() if name in between.sizes}
        with threadpool_limits(1, user_api="blas"):  # its own sums come out the same with any number of threads
            outcome = auto.run(_objectives(asked), starts=[start] if start else [])
        points = _points(outcome, auto)
        sizes = between.sizes
    chosen = next(each for each in outcome.choices if each.objective.least == asked.least)
    return Found(
        selection=_selected(evaluator, selection, chosen), facts=_facts(asked, outcome, chosen, sizes=sizes),
        points=points, warnings=_warnings(outcome, asked),
        frontier={_label(each): _rounded(each.strengths) for each in outcome.choices if each is not chosen},
    )


@contextmanager
def pair(evaluator: Evaluator) -> "Iterator[tuple[Between, Any]]":
    """A live model between base and adapted, and the adapted model's tokenizer."""
    from worker.evaluation.candidates import Between  # noqa: PLC0415
    from worker.evaluation.loading import load_model, load_tokenizer  # noqa: PLC0415

    base, adapted, *_ = evaluator.subjects()
    one, two = (_model(subject, evaluator, load_model) for subject in (base, adapted))
    with _one_thread():  # sums over a weight come out the same with any number of threads
        between = Between(one, two)
    yield between, load_tokenizer(adapted.path, repo=adapted.repo, base=adapted.base)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def crew_for(evaluator: Evaluator, between: "Between", *, slopes: bool = False, filtered: bool = False) -> "Crew":
    """As many processes as the worker has threads and memory has room for; one on a device, and it has all threads.

    `slopes` are wanted too; `filtered` weights will be held once for all.
    """
    from worker.evaluation.crew import Crew, affordable  # noqa: PLC0415

    size = evaluator.task.threads if evaluator.device == "cpu" else 1  # a CUDA context does not survive a fork
    weights = sum(weight.nbytes for weight in between.model.parameters())
    nbytes = weights + batch_bytes(between.model, slopes=slopes)
    return Crew(
        size=affordable(size, nbytes=nbytes, shared=weights if filtered else 0), told=evaluator.reporter.beat
    )


def batch_bytes(model: Any, *, slopes: bool) -> int:
    """What one batch takes at most, in bytes, of a model in fp32.

    That is its logits; where there is a backward pass, the activations that it holds too: about as many numbers for
    each token as the layers' matrices have rows and columns.
    """
    from worker.evaluation.language_model import BATCH_TOKENS  # noqa: PLC0415
    from worker.evaluation.slopes import SLOPED_TOKENS  # noqa: PLC0415

    logits = _LOGITS * int(model.config.vocab_size)
    layers = [weight.shape for weight in model.parameters() if weight.dim() == 2]
    held = _FP32 * sum(sum(shape) for shape in layers if model.config.vocab_size not in shape)
    return max(BATCH_TOKENS * logits, SLOPED_TOKENS * (logits + held) if slopes else 0)


def _model(subject: Subject, evaluator: Evaluator, load: Any) -> Any:
    return load(subject.path, repo=subject.repo, base=subject.base, device=evaluator.device)


def _yardstick(evaluator: Evaluator, between: "Between", tokenizer: Any, crew: "Crew") -> "BenchYardstick":
    from worker.evaluation.sides import Part  # noqa: PLC0415
    from worker.evaluation.yardstick import Asked, BenchYardstick  # noqa: PLC0415

    benches = evaluator.benches
    tasks = [Asked(one.label, one.bench, Part("general", one.task.weight)) for one in benches.calibration_general]
    tasks += [Asked(one.label, one.bench, Part("domain", one.task.weight)) for one in benches.calibration_domain]
    return BenchYardstick(between, tokenizer, tasks, crew=crew)


def _check_names(evaluator: Evaluator, between: "Between") -> None:
    """A strength can be given to weights only that the files name as the loaded model does."""
    tensors = {row["tensor"] for row in unscored(evaluator.task, ())}
    foreign = sorted(set(between.names) - tensors)
    if foreign:
        repo = evaluator.task.experts[0].repo
        raise SpearError(
            Code.MODEL_UNSUPPORTED,
            f"{repo}: transformers names {foreign[0]} otherwise than the files do, so policy 'auto' cannot move it",
            repo=repo, tensor=foreign[0],
        )  # fmt: skip


def _check_sides(sides: Any) -> None:
    if not sides.defined(0):
        message = "nothing was forgotten in the general calibration tasks, so there is nothing to restore"
        raise SpearError(Code.TASK_UNSUPPORTED, message, pointer="/evaluation/calibration/general")
    if not sides.defined(1):
        message = "the adapted model is no better than the base in the domain's calibration tasks: no gain to keep"
        raise SpearError(Code.TASK_UNSUPPORTED, message, pointer="/evaluation/calibration/domain")


def _method(asked: AutoSearch, yardstick: "BenchYardstick") -> Any:
    if asked.method == "gradient" and not yardstick.sloped:
        raise SpearError(
            Code.TASK_UNSUPPORTED, "method.auto.method 'gradient' needs calibration tasks of the kind perplexity",
            pointer="/method/auto/method",
        )
    return asked.method


def _objectives(asked: AutoSearch) -> list[Any]:
    from worker.evaluation.auto import FRONTIER  # noqa: PLC0415
    from worker.evaluation.search import Objective  # noqa: PLC0415

    if asked.objective != "frontier":
        return [Objective(asked.objective, asked.least)]
    return [Objective("retention", least) for least in sorted({*FRONTIER, asked.least}, reverse=True)]


def _points(outcome: "Outcome", auto: Any) -> tuple[schema.Point, ...]:
    """The uniform curve and what was chosen, on the stretch of the calibration set that was searched."""
    from worker.evaluation.auto import UNIFORM  # noqa: PLC0415

    names = auto.trials.yardstick.names
    curve = [dict.fromkeys(names, t) for t in sorted(UNIFORM, reverse=True)]
    told = [("control", "uniform", f"uniform t = {t:g}", {"t": t}) for t in sorted(UNIFORM, reverse=True)]
    told += [("candidate", "auto", _label(each), {"least": each.objective.least}) for each in outcome.choices]
    asked = [*curve, *(each.strengths for each in outcome.choices)]
    return tuple(
        schema.Point(kind=kind, name=name, label=label, settings=settings, on="calibration", **sides)
        for (kind, name, label, settings), sides in zip(told, _estimates(auto, asked), strict=True)
    )


def _estimates(auto: Any, asked: list[Mapping[str, float]]) -> list[dict[str, Any]]:
    from worker.evaluation.bootstrap import estimate  # noqa: PLC0415

    samples = auto.sides["search"].samples([auto.trials.ask(each, "search").sheets for each in asked])
    return [{"retention": estimate(one[0]), "gain_kept": estimate(one[1])} for one in samples]


def _label(choice: "Choice") -> str:
    held = "gain kept" if choice.objective.maximise == "retention" else "retention"
    return f"auto at {held} of {choice.objective.least:g}"


def _rounded(strengths: Mapping[str, float]) -> dict[str, float]:
    return {name: round(float(t), DIGITS) for name, t in strengths.items()}


def _selected(evaluator: Evaluator, selection: Selection, chosen: "Choice") -> Selection:
    """Every weight with its strength; tensors that are not weights of the model stay the adapted model's."""
    decisions = {name: t for name, t in _rounded(chosen.strengths).items() if t != 1}
    every = [_fate(row, decisions) for row in (*selection.rows, *unscored(evaluator.task, selection.rows))]
    scored = {row["name"] for row in selection.rows}
    return Selection(
        rows=[row for row in every if row["name"] in scored], decisions=decisions, shares=shares(every),
        warnings=[],
    )


def _fate(row: Row, decisions: Mapping[str, float]) -> Row:
    t = decisions.get(row["tensor"])
    return {**row, "selected": t is not None, "t": 1.0 if t is None else t, "reason": "searched"}


def _facts(asked: AutoSearch, outcome: "Outcome", chosen: "Choice", *, sizes: Mapping[str, int]) -> dict[str, Any]:
    total = sum(sizes.values())
    return {
        "objective": {"kind": asked.objective, "least": asked.least}, "budget": asked.budget, "most": asked.most,
        "spent": round(outcome.spent, 2), "method": outcome.method, "groups": _groups(chosen, sizes=sizes, total=total),
        "curve": [{"t": t, "retention": retention, "gain_kept": gain} for t, retention, gain in outcome.curve],
        "choices": [
            {"label": _label(each), "least": each.objective.least, "searched": each.searched, "uniform_t": each.uniform,
             "retention": each.values[0], "gain_kept": each.values[1], "advantage": each.advantage[0],
             "advantage_low": each.advantage[1], "chosen": each is chosen}
            for each in outcome.choices
        ],
    }  # fmt: skip


def _groups(chosen: "Choice", *, sizes: Mapping[str, int], total: int) -> dict[str, Any]:
    """The mean strength of each group, weighted by size, and the group's share of all parameters."""
    from worker.evaluation.groups import grouped  # noqa: PLC0415

    found = {}
    for group, members in grouped(sizes).items():
        parameters = sum(sizes[name] for name in members)
        mean = sum(chosen.strengths[name] * sizes[name] for name in members) / parameters
        found[group] = {"t": round(mean, DIGITS), "parameters": parameters, "share": round(parameters / total, DIGITS)}
    return found


def _warnings(outcome: "Outcome", asked: AutoSearch) -> list[str]:
    kept = [each for each in outcome.choices if not each.searched]
    if not kept:
        return []
    return [
        f"at {asked.least:g} the search found nothing that beats one strength for all weights beyond the noise of the "
        f"calibration set: t = {each.uniform:g} for all is taken"
        for each in kept if each.objective.least == asked.least
    ]  # fmt: skip
