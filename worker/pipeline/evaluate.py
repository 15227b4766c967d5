"""The stage `evaluating`: what base, experts and result do on the recipe's tasks, and whether the gate is passed."""

import gc
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.errors import Code, SpearError
from app.recipes.evaluation import Evaluation
from worker.evaluation.answers import Parents, Sheets, document, values
from worker.evaluation.gate import judge
from worker.evaluation.identity import Key, blob_digest, model_digest, settings_digest
from worker.evaluation.kept import Kept
from worker.evaluation.measures import Measures
from worker.pipeline.companions import PATTERNS
from worker.pipeline.score import device_of
from worker.pipeline.task import Input, Reporter, Task
from worker.report import schema

if TYPE_CHECKING:  # they need lm-eval, which is an extra
    from worker.evaluation.language_model import LanguageModel
    from worker.evaluation.preparation import Benches, Ready
    from worker.evaluation.sheets import Sheet

JOURNAL = "sheets.journal"
"""the answer sheets of all attempts, in the job's directory"""
SHEETS = "sheets.json"
"""the answer sheets of all models, for the job's page; they are not published"""
RESULT = "result"
"""the name of what was merged, among the models"""
Further = Callable[["Evaluator", Parents], Mapping[str, Any]]
"""what else is to be found out beside the result: fields of `schema.Evaluation` to add"""


@dataclass(frozen=True)
class Subject:
    """One model to be asked: where it lies, and the digest of all its answers depend on."""

    repo: str
    path: Path
    base: Path
    digest: str

    @classmethod
    def of(cls, source: Input, *, base: Input) -> "Subject":
        """An input; an adapter is applied to `base`."""
        under = base.digests if source.is_adapter else None
        digest = model_digest(source.digests, base=under)
        return cls(repo=source.repo, path=source.path, base=base.path, digest=digest)

    @classmethod
    def made(cls, task: Task, *, weights: Mapping[str, str]) -> "Subject":
        """What was merged; `weights` are the SHA-256 of its weights' files."""
        others = {path.name: blob_digest(path) for pattern in PATTERNS for path in task.output.glob(pattern)}
        digests = {name: f"sha256:{digest}" for name, digest in weights.items()} | others
        return cls(repo=RESULT, path=task.output, base=task.output, digest=model_digest(digests))


@dataclass(kw_only=True)
class Evaluator:
    """The tasks of a job, ready to be asked of any model; sheets that are known are not asked for again."""

    task: Task
    benches: "Benches"
    kept: Kept
    reporter: Reporter
    device: str
    settings: str
    asked: int = field(default=0, init=False)
    """items that a model was asked in this attempt"""

    @property
    def evaluation(self) -> Evaluation:
        assert self.task.evaluation is not None
        return self.task.evaluation

    def subjects(self) -> tuple[Subject, ...]:
        """The base and the experts."""
        base = self.task.base
        return tuple(Subject.of(source, base=base) for source in (base, *self.task.experts))

    def known(self, subject: Subject, ready: "Ready") -> "Sheet | None":
        """The answer sheet, if it is known."""
        return self.kept.find(self._key(subject, ready))

    def sheets(
        self, subject: Subject, readies: "Sequence[Ready]", *, told: Callable[[], None] = lambda: None,
        answered: "Callable[[Ready], None]" = lambda _: None,
    ) -> "dict[str, Sheet]":
        """The model's answer sheets by task; it is loaded only where one of them is not known.

        `told` is called after each batch, `answered` after each task.
        """
        found: dict[str, Sheet] = {}
        missing = []
        for one in readies:
            sheet = self.known(subject, one)
            if sheet:
                found[one.label] = sheet.model_copy(update={"task": one.label})
                answered(one)
            else:
                missing.append(one)
        if missing:
            with self.loaded(subject, told=told) as model:
                for one in missing:
                    found[one.label] = sheet = one.bench.ask(model)
                    self.asked += one.bench.size
                    self.kept.keep(self._key(subject, one), sheet)
                    answered(one)
        return {one.label: found[one.label] for one in readies}

    @contextmanager
    def loaded(self, subject: Subject, *, told: Callable[[], None] = lambda: None) -> "Iterator[LanguageModel]":
        """The model in memory, as long as the block lasts."""
        from worker.evaluation.language_model import LanguageModel  # noqa: PLC0415  (lm-eval is an extra)
        from worker.evaluation.loading import load_model, load_tokenizer  # noqa: PLC0415

        tokenizer = load_tokenizer(subject.path, repo=subject.repo, base=subject.base)
        model = load_model(subject.path, repo=subject.repo, base=subject.base, device=self.device)
        try:
            yield LanguageModel(model, tokenizer, told=told)
        finally:
            del model
            gc.collect()  # the next model must not find this one in memory

    def check_tokenizers(self) -> None:
        """Raises `SpearError(tokenizer_unsuitable)` for an input whose tokenizer lacks a token that is needed."""
        from worker.evaluation.loading import load_tokenizer  # noqa: PLC0415

        for source in self.task.inputs:
            tokenizer = load_tokenizer(source.path, repo=source.repo, base=self.task.base.path)
            if self.benches.generating and tokenizer.eos_token_id is None:
                label = self.benches.generating[0].label
                raise SpearError(
                    Code.TOKENIZER_UNSUITABLE, f"{source.repo}: task {label} needs an eos_token, and there is none",
                    repo=source.repo, token="eos_token", task=label,  # noqa: S106  (the name of a token)
                )

    def _key(self, subject: Subject, ready: "Ready") -> Key:
        return Key(model=subject.digest, task=ready.digest, settings=self.settings)


def prepare(task: Task, reporter: Reporter) -> Evaluator | None:
    """The recipe's tasks, built before any weight is touched; none where the recipe asks for no evaluation.

    Raises `SpearError`: `evaluation_missing` where the worker has no lm-eval, `tokenizer_unsuitable`, and as
    `worker.evaluation.preparation.ready` does.
    """
    if task.evaluation is None:
        return None
    _check_extra()
    from worker.evaluation.loading import dtype_of  # noqa: PLC0415
    from worker.evaluation.preparation import ready  # noqa: PLC0415

    device = device_of(task)
    settings = settings_digest(
        limit=task.evaluation.limit, seed=task.evaluation.seed, dtype=dtype_of(device), device=device
    )
    reporter.stage("preparing", total=len(task.inputs), unit="tokenizers")
    evaluator = Evaluator(
        task=task, benches=ready(task.evaluation, sources=task.sources, data=data_folder(task)), reporter=reporter,
        kept=Kept(task.sheets, journal=task.work_dir / JOURNAL, tell=reporter.sheet), device=device, settings=settings,
    )
    evaluator.check_tokenizers()
    return evaluator


def evaluate(evaluator: Evaluator, *, weights: Mapping[str, str], further: Sequence[Further] = ()) -> schema.Evaluation:
    """What the result does, beside base and experts; `weights` are the SHA-256 of the result's weights' files.

    The answer sheets are written to `SHEETS` in the job's directory.
    """
    task = evaluator.task
    base, *experts = evaluator.subjects()
    progress = _Progress(evaluator, models=2 + len(experts))
    answers = {name: progress.ask(subject) for name, subject in _named([base, *experts]).items()}
    answers[RESULT] = progress.ask(Subject.made(task, weights=weights))
    (task.work_dir / SHEETS).write_text(json.dumps(document(answers)))
    result = answers.pop(RESULT)
    parents = _parents(evaluator, answers)
    chosen = parents.point(result, kind="chosen", name=task.merging.method.method_name(), label=RESULT)
    found: dict[str, Any] = {"points": (*_ends(parents), chosen)}
    for look in further:
        for name, value in look(evaluator, parents).items():
            found[name] = (*found[name], *value) if name in found else value
    return _evaluation(evaluator, parents.measure(result), **found)


def measure(evaluator: Evaluator) -> schema.Evaluation:
    """An evaluation on its own: the models' values, and their shares where base and experts are named.

    `tasks` and the gate are about the first of the models.
    """
    task = evaluator.task
    progress = _Progress(evaluator, models=len(task.inputs))
    subjects = _named([Subject.of(source, base=task.base) for source in task.inputs])
    answers = {name: progress.ask(subject) for name, subject in subjects.items()}
    (task.work_dir / SHEETS).write_text(json.dumps(document(answers)))
    names = list(answers)
    first = len(names) - len(task.models)
    asked = {name: answers[name] for name in names[first:]}
    if first:
        return _beside(evaluator, _parents(evaluator, {name: answers[name] for name in names[:first]}), asked)
    models = (_measured(*one, evaluator) for one in zip(task.models, asked.values(), strict=True))
    return schema.Evaluation(
        tasks=(), retention=None, gain_kept=None, abilities={}, models=tuple(models), settings=_settings(evaluator)
    )


def _beside(evaluator: Evaluator, parents: Parents, asked: Mapping[str, Sheets]) -> schema.Evaluation:
    """Models beside base and experts."""
    found = {name: parents.measure(sheets) for name, sheets in asked.items()}
    first = next(iter(found.values()))
    models = (
        _measured(source, asked[name], evaluator, shares=found[name])
        for source, name in zip(evaluator.task.models, asked, strict=True)
    )
    points = (parents.point(sheets, kind="candidate", name="model", label=name) for name, sheets in asked.items())
    return _evaluation(
        evaluator, first, models=tuple(models), points=(*_ends(parents), *points)
    )


def _evaluation(evaluator: Evaluator, measures: Measures, **found: Any) -> schema.Evaluation:
    """With the gate's word on these measures."""
    gate = evaluator.evaluation.gate
    return schema.Evaluation(
        **{name: getattr(measures, name) for name in Measures.model_fields},
        gate=judge(gate, measures) if gate else None, settings=_settings(evaluator), **found,
    )


def _measured(
    source: Input, sheets: Sheets, evaluator: Evaluator, *, shares: Measures | None = None
) -> schema.Measured:
    return schema.Measured(
        repo=source.repo, revision=source.revision, commit=source.commit,
        tasks=values(sheets, seed=evaluator.evaluation.seed), retention=shares.retention if shares else None,
        gain_kept=shares.gain_kept if shares else None,
    )


def _parents(evaluator: Evaluator, answers: Mapping[str, Sheets]) -> Parents:
    """`answers` are the base's, then the experts'."""
    base, *experts = answers
    return Parents(
        general=evaluator.benches.general, domain=evaluator.benches.domain, base=answers[base],
        adapted={name: answers[name] for name in experts}, seed=evaluator.evaluation.seed,
    )


def data_folder(task: Task) -> Path:
    """Where data sets lie in folders of their own names: the working directory of lm-eval's tasks."""
    folder = task.work_dir / "data" / "sets"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _check_extra() -> None:
    try:
        import lm_eval  # noqa: F401, PLC0415
        import transformers  # noqa: F401, PLC0415
    except ImportError as error:
        message = f"this worker cannot evaluate: {error.name} is not installed; install spear-merge[eval]"
        raise SpearError(Code.EVALUATION_MISSING, message, extra="eval", module=error.name) from error


class _Progress:
    """Items answered so far by all models, told to the supervisor."""

    def __init__(self, evaluator: Evaluator, *, models: int) -> None:
        self._evaluator = evaluator
        self._readies = evaluator.benches.held_out
        self._done = 0
        total = models * sum(one.bench.size for one in self._readies)
        evaluator.reporter.stage("evaluating", total=total, unit="items")

    def ask(self, subject: Subject) -> Sheets:
        """All of a model's sheets of the tasks to report on."""

        def answered(one: "Ready") -> None:
            self._done += one.bench.size
            self._evaluator.reporter.step(done=self._done, name=one.label, model=subject.repo)

        return self._evaluator.sheets(subject, self._readies, told=self._evaluator.reporter.beat, answered=answered)


def _named(subjects: Sequence[Subject]) -> dict[str, Subject]:
    """By repository; of two revisions of one, the second has a number."""
    named: dict[str, Subject] = {}
    for subject in subjects:
        name, number = subject.repo, 1
        while name in named:
            number += 1
            name = f"{subject.repo} ({number})"
        named[name] = subject
    return named


def _ends(parents: Parents) -> tuple[schema.Point, ...]:
    """The base and the experts, as points."""
    base = parents.point(parents.base, kind="base", name="base", label="base", share=1.0)
    adapted = (
        parents.point(sheets, kind="adapted", name="adapted", label=name, share=0.0)
        for name, sheets in parents.adapted.items()
    )
    return (base, *adapted)


def _settings(evaluator: Evaluator) -> dict[str, Any]:
    from worker.evaluation.loading import dtype_of  # noqa: PLC0415

    asked = evaluator.evaluation
    return {
        "limit": asked.limit, "seed": asked.seed, "device": evaluator.device, "dtype": dtype_of(evaluator.device),
        "lm_eval": version("lm-eval"), "transformers": version("transformers"),
    }
