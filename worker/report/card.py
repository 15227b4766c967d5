"""README.md: the model card. A view of the report; every string from outside is escaped."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from worker.pipeline.task import Task
from worker.report import licence, markup
from worker.report.measured import chapter
from worker.report.model_index import measured, model_index
from worker.report.schema import Module, Report, Selection, Source
from worker.report.verdict import NO_EVALUATION, count, strength

PIPELINES = {
    "ForCausalLM": "text-generation",
    "ForMaskedLM": "fill-mask",
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
}
RECONSTRUCTION = (
    "`spear` is a reconstruction of SPEAR-MM ([arXiv 2511.08500](https://arxiv.org/abs/2511.08500)), whose equations "
    "are not public: the choices made here are the parameters in the recipe, and the paper's figures are not claimed "
    "for this model."
)
MEASURED = "What was measured holds for the tasks above; other abilities were not looked at."
CONTROL = (
    "Scores are made from weights alone. Whether moving the chosen tensors was better than moving all of them a "
    "little (uniform interpolation) can only be told by measuring both."
)


def build_card(
    task: Task, *, report: Mapping[str, Any], config: Mapping[str, Any], figures: Mapping[str, str]
) -> str:
    """The card's text.

    `report` is `build_report`'s document, `config` the published config.json, `figures` the alternative text of every
    picture by its path in the repository.
    """
    told = Report.model_validate(report)
    parts = [
        f"---\n{markup.yaml(_front_matter(task, told, config=config))}\n---",
        f"# {markup.text(task.merging.target.repo.partition('/')[2])}",
        markup.text(told.verdict),
        *([_restored(task, told.selection)] if told.selection.scored else []),
        *_pictures(figures, places=(0, 1)),
        *chapter(told.evaluation),
        _parents(task, told.inputs),
        *(["## The scores behind it", *_pictures(figures, places=(1, len(figures)))] if len(figures) > 1 else []),
        f"## Recipe\n\n{markup.fenced(json.dumps(told.recipe, indent=2, ensure_ascii=False), language='json')}",
        _limits(task, told),
        _reproduce(task),
    ]
    return "\n\n".join(parts) + "\n"


def _pictures(figures: Mapping[str, str], *, places: tuple[int, int]) -> list[str]:
    """Some of the pictures, in their order: the first stands with the verdict, the others further below."""
    return [f"![{markup.text(words)}]({path})" for path, words in list(figures.items())[slice(*places)]]


def _front_matter(task: Task, told: Report, *, config: Mapping[str, Any]) -> dict[str, Any]:
    parents = list(dict.fromkeys(source.repo for source in task.inputs))
    method = task.method.method_name()
    tags = ["merge", "spear-merge", method.replace("_", "-"), *(["spear-mm"] if method == "spear" else [])]
    pipeline = _pipeline(config)
    name = task.merging.target.repo.partition("/")[2]
    index = model_index(told, name=name, pipeline=pipeline or "text-generation")
    return {
        "base_model": parents,
        "base_model_relation": "merge",
        "library_name": "transformers",
        **({"pipeline_tag": pipeline} if pipeline else {}),
        **licence.fields(task.inputs),
        "tags": tags,
        **({"model-index": index} if index else {}),
    }


def _pipeline(config: Mapping[str, Any]) -> str | None:
    architectures = config.get("architectures")
    name = str(architectures[0]) if isinstance(architectures, list) and architectures else ""
    return next((tag for suffix, tag in PIPELINES.items() if name.endswith(suffix)), None)


def _restored(task: Task, selection: Selection) -> str:
    lines = [_module_row(module) for module in selection.modules]
    total = Module(
        module_type="all scored",
        selected=selection.selected,
        scored=selection.scored,
        parameters=selection.parameters,
        parameters_scored=selection.parameters_scored,
        share=selection.parameters / selection.parameters_scored if selection.parameters_scored else 0.0,
    )
    head = ("module type", "restored", "parameters restored", "share of parameters")
    words = [
        "## What was restored",
        markup.table(head, [*lines, _module_row(total)], right=(1, 2, 3)),
        f"Strength: {strength(task)}. Tensors that were not restored are the adapted model's.",
        *_apart(selection),
    ]
    return "\n\n".join(words)


def _module_row(module: Module) -> tuple[str, ...]:
    name = markup.code(module.module_type) if module.module_type != "all scored" else "**all scored**"
    return (name, f"{module.selected} of {module.scored}", count(module.parameters), f"{module.share:.1%}")


def _apart(selection: Selection) -> list[str]:
    """The embedding and the head hold much of a small model, and are off by default: their share is always told."""
    known = {name: selection.shares.get(f"{name}_share") for name in ("embedding", "head")}
    parts = [f"{name} {share:.1%}" for name, share in known.items() if isinstance(share, int | float)]
    return [f"Share of the model's parameters in groups of their own: {', '.join(parts)}."] if parts else []


def _parents(task: Task, sources: Sequence[Source]) -> str:
    rows = [
        (
            _role(i, source, alone=len(sources) == 2),
            f"[{markup.text(source.repo)}](/{source.repo}/tree/{source.commit})",
            markup.code(source.revision),
            markup.code(source.commit),
            markup.text(source.license or "not stated"),
        )
        for i, source in enumerate(sources)
    ]
    table = markup.table(("role", "repository", "revision", "commit", "licence"), rows)
    return f"## Parents\n\n{table}\n\n{licence.statement(task.inputs)}"


def _role(number: int, source: Source, *, alone: bool) -> str:
    name = "base" if number == 0 else "adapted" if alone else f"expert {number}"
    return f"{name} (LoRA adapter, applied to the base)" if source.adapter else name


def _limits(task: Task, told: Report) -> str:
    known = [] if measured(told.evaluation) else [NO_EVALUATION]
    if task.method.method_name() == "spear":
        known += [RECONSTRUCTION, *([] if _controlled(told) else [CONTROL])]
    known += [markup.text(told.merge.statement)] if told.merge.statement else []
    known += [f"Warning: {markup.text(warning)}" for warning in told.warnings]
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in known or [MEASURED])


def _controlled(told: Report) -> bool:
    """Whether the controls were measured beside it."""
    return any(point.kind == "control" for point in (told.evaluation.points if told.evaluation else ()))


def _reproduce(task: Task) -> str:
    return (
        "## Reproduce\n\n"
        "`merge_manifest.json` names the pinned inputs with the digests of all their files, what was done to every "
        "tensor, the engine's versions and the digest of every published file. This makes it again from those inputs "
        "and compares the digests:\n\n"
        f"{markup.fenced(f'spear reproduce {task.merging.target.repo}', language='bash')}\n\n"
        "`report.json` holds every score."
    )
