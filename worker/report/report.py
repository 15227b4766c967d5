"""report.json: everything a merge has to say for itself, in one versioned document."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from app.recipes import Measuring, ModelRef
from worker.pipeline.task import Task
from worker.report import schema
from worker.report.distribution import distribution
from worker.report.engine import cpu_name, engine
from worker.report.heatmap import ORDER, heatmap
from worker.report.spectra import shown
from worker.report.verdict import fallback_statement, verdict
from worker.scores.curve import Curve

Role = Literal["base", "expert", "model"]
MERGE_FIELDS = ("operations", "lerp_fallbacks", "bytes")


def build_report(
    task: Task,
    *,
    rows: Sequence[Mapping[str, Any]],
    selection: Mapping[str, Any],
    merge: Mapping[str, Any],
    verification: Mapping[str, Any],
    costs: Mapping[str, Any],
    warnings: Sequence[str] = (),
    curves: Mapping[str, Curve] | None = None,
    merged: Mapping[str, Sequence[float]] | None = None,
    evaluation: schema.Evaluation | None = None,
) -> dict[str, Any]:
    """The report as JSON-safe data: no NaN, no infinity (both become null), no tuples.

    `rows` are the scored tensors as `GET /merges/{id}/scores` gives them, empty for methods without scores.
    `selection` holds shares of the whole model; of them `model_parameters`, `bytes`, `model_bytes`, `embedding_share`
    and `head_share` are shown where given. `merge` holds `operations` (tensors by operation), `lerp_fallbacks` and
    `bytes`; all else in it was measured and is moved to the costs. `costs` holds `stages` (seconds by stage),
    `spectra_computed`, `spectra_cached`, `peak_rss_bytes` and `device`, where known. `curves` are the spectra of the
    rows by name, `merged` the singular values of restored matrices: those that `method.show` names are shown.
    """
    scored = tuple(schema.Row.model_validate(plain(row)) for row in rows)
    shares, done, taken = plain(selection), plain(merge), plain(costs)
    chosen = _selection(scored, shares=shares)
    report = schema.Report(
        verdict=verdict(task, selection=chosen, shares=shares, evaluation=evaluation),
        job=schema.Job(id=task.job_id),
        recipe=task.recipe.model_dump(mode="json"),
        inputs=_sources(task),
        method=_method(task),
        selection=chosen,
        merge=_merge(done),
        verification=plain(verification),
        warnings=tuple(dict.fromkeys((*task.warnings, *warnings))),
        engine=engine(device=str(taken.pop("device", task.device))),
        costs=_costs(task, costs=taken, measured={k: v for k, v in done.items() if k not in MERGE_FIELDS}),
        evaluation=evaluation,
        heatmap=heatmap(scored),
        distribution=distribution(scored),
        spectra=shown(scored, patterns=patterns_of(task), curves=curves or {}, merged=merged or {}),
        scores=scored,
    )
    return report.model_dump(mode="json")


def patterns_of(task: Task) -> tuple[str, ...]:
    """The patterns of tensors whose spectra are to be shown; none for methods without scores."""
    return () if isinstance(task.recipe, Measuring) else tuple(getattr(task.method, "show", ()))


def lasting(report: Mapping[str, Any]) -> dict[str, Any]:
    """The report as it is published: without what differs between two runs of one job."""
    return {**report, "costs": None}


def plain(value: Any) -> Any:
    """JSON-safe data: mappings, lists, strings, booleans, integers, finite floats and null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, Path):
        return str(value)
    return plain(value.item())  # a scalar of numpy or torch


def _sources(task: Task) -> tuple[schema.Source, ...]:
    # the inputs' own revisions may be pinned already
    recipe = task.recipe
    asked: list[tuple[Role, ModelRef]] = [("base", recipe.base)] if recipe.base else []
    asked += [("expert", one) for one in recipe.experts]
    asked += [("model", one) for one in recipe.models] if isinstance(recipe, Measuring) else []
    return tuple(
        schema.Source(
            role=role,
            repo=source.repo,
            revision=ref.revision,
            commit=source.commit,
            license=source.license,
            adapter=source.is_adapter,
        )
        for source, (role, ref) in zip(task.inputs, asked, strict=True)
    )


def _method(task: Task) -> schema.Method:
    if isinstance(task.recipe, Measuring):
        return schema.Method(name="evaluation", parameters=task.recipe.evaluation.model_dump(mode="json"))
    parameters = task.method.model_dump(mode="json")
    return schema.Method(name=parameters.pop("name"), parameters=parameters)


def _merge(done: Mapping[str, Any]) -> schema.Merge:
    operations, fallbacks = done.get("operations", {}), done.get("lerp_fallbacks", 0)
    return schema.Merge(
        operations=operations,
        lerp_fallbacks=fallbacks,
        bytes=done.get("bytes", 0),
        statement=fallback_statement(fallbacks, operations=operations),
    )


def _costs(task: Task, *, costs: Mapping[str, Any], measured: Mapping[str, Any]) -> schema.Costs:
    extra = {"merge": dict(measured)} if measured else {}
    return schema.Costs.model_validate({**extra, **costs, "attempt": task.attempt, "cpu": cpu_name()})


def _selection(rows: Sequence[schema.Row], *, shares: dict[str, Any]) -> schema.Selection:
    types = {row.module_type for row in rows}
    order = [name for name in ORDER if name in types] + sorted(types - set(ORDER))
    chosen = [row for row in rows if row.selected]
    return schema.Selection(
        selected=len(chosen),
        scored=len(rows),
        parameters=sum(row.parameters for row in chosen),
        parameters_scored=sum(row.parameters for row in rows),
        modules=tuple(_module(name, [row for row in rows if row.module_type == name]) for name in order),
        shares=shares,
    )


def _module(name: str, rows: Sequence[schema.Row]) -> schema.Module:
    chosen = [row for row in rows if row.selected]
    restored, total = sum(row.parameters for row in chosen), sum(row.parameters for row in rows)
    return schema.Module(
        module_type=name,
        selected=len(chosen),
        scored=len(rows),
        parameters=restored,
        parameters_scored=total,
        share=restored / total if total else 0.0,
    )
