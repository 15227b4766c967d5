"""Everything that is checked before a merge is queued, without downloading a weight.

Each refusal's `pointer` shows the recipe's field at fault.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace

from app.errors import Code, SpearError
from app.hub.access import check_read, check_write
from app.hub.adapter_heads import adapter_warnings, applied, ships_tokenizer
from app.hub.admission import FLOATS, Admission, admit, check_layers
from app.hub.alignment import align, read_lexicons
from app.hub.cells import check_cells, check_publications
from app.hub.client import Hub, Hubs
from app.hub.headers import DTYPE_BITS, TensorInfo
from app.hub.inspect import Head, inspect, read_small
from app.hub.memory import loaded, working_set
from app.hub.pins import Pin, RemoteFile, pin
from app.hub.replays import decisions_of
from app.hub.specials import check_specials
from app.hub.tasks import Commits, Material, Materials
from app.hub.tokenrows import row_warnings
from app.hub.vocabulary import COMPARABLE, OPAQUE, Vocabulary, compare_vocabularies, parse_vocabulary
from app.recipes import AnyRecipe, Measuring, ModelRef, Recipe, Scoring, Study, Target
from app.recipes.catalogue import is_causal
from app.recipes.coverage import check_chances, check_coverage
from app.recipes.depth import layer_count
from app.recipes.vectors import counted
from app.settings import Settings

OUTPUT_TAGS = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
IDLE_BYTES = 400_000_000
"""Anonymous memory of the computing process before it has read a tensor."""
_REVISION_CODES = frozenset({Code.REVISION_NOT_FOUND})
_PARALLEL = 4


@dataclass(frozen=True)
class Preflight:
    """What was found: the base first, then the experts in the recipe's order, in `pins` and `heads` alike, then the
    models of an evaluation on its own.

    `dtypes` are the safetensors tags that the output's tensors will have; all sizes are in bytes.
    """

    pins: tuple[Pin, ...]
    heads: tuple[Head, ...]
    admission: Admission
    warnings: tuple[str, ...]
    dtypes: tuple[str, ...]
    bytes_to_download: int
    output_bytes: int
    peak_memory_bytes: int
    disk_bytes: int
    materials: tuple[Material, ...] = ()
    """what the evaluation's tasks are made of"""
    replay: dict[str, float] | None = None
    """the decisions that the recipe takes over from a published merge"""


def preflight(
    recipe: AnyRecipe,
    *,
    hubs: Hubs,
    settings: Settings,
    reads: Sequence[str],
    writes: Sequence[str],
    commits: Sequence[str] | None = None,
    task_commits: Commits | None = None,
) -> Preflight:
    """Checks grants and access, pins every input, reads the heads and compares them.

    With `commits` (the base's, then the experts', then the models') and `task_commits`, those commits are used, not
    what the revisions mean now: so a worker checks again what the API has accepted. Raises `SpearError` with the
    recipe's pointer.
    """
    target = recipe.target if isinstance(recipe, Recipe) else None
    _check_targets(recipe, publisher=hubs.publisher, writes=writes)
    heads = _heads(recipe, hubs=hubs, settings=settings, reads=reads, commits=commits)
    source = recipe.tokenizer_input if isinstance(recipe, Recipe) else None
    if isinstance(recipe, Recipe) and recipe.layers:
        check_layers(heads, wanted=recipe.layers)
    materials = _materials(recipe, heads, hubs=hubs, settings=settings, reads=reads, commits=task_commits)
    if isinstance(recipe, Measuring):
        return _measured(recipe, heads, materials)
    try:
        admission = admit(heads if source is None else align(heads, source=source))
        matched = () if source is None else _match_tokens(heads, source=source, hubs=hubs, settings=settings)
    except SpearError as error:
        error.pointer = _models(recipe)[int(error.names.pop("model", 1))][0] + "/repo"
        raise
    _check_methods(recipe, heads, admission)
    compared = _compare_tokenizers(heads, hubs=hubs, settings=settings) if source is None else matched
    adapted = (words for head in heads[1:] for words in adapter_warnings(head, heads[0]))
    warnings = (*adapted, *compared, *_about_target(target, hubs=hubs))
    dtype = recipe.output.dtype or getattr(recipe.method, "dtype", None) if isinstance(recipe, Recipe) else None
    found = _summary(recipe, dtype, heads, admission, warnings=warnings, materials=materials)
    if isinstance(recipe, Study):  # nothing is written
        return replace(found, output_bytes=0, disk_bytes=found.bytes_to_download)
    if not isinstance(recipe, Recipe):
        return found
    tensors = {tensor.name for tensor in admission.tensors}
    return replace(found, replay=decisions_of(recipe, hubs=hubs, reads=reads, pins=found.pins, tensors=tensors))


def _check_targets(recipe: AnyRecipe, *, publisher: Hub, writes: Sequence[str]) -> None:
    """Grant and access to whatever is to be published."""
    if isinstance(recipe, Recipe):
        with _at("/target/repo"):
            check_write(recipe.target, service=publisher, writes=writes)
    if isinstance(recipe, Study):
        check_publications(recipe, publisher=publisher, writes=writes)


def _check_methods(recipe: AnyRecipe, heads: Sequence[Head], admission: Admission) -> None:
    """Whether the methods can work on these tensors."""
    if isinstance(recipe, Recipe):
        merged = (tensor for tensor in admission.tensors if all(tensor.name in head.tensors for head in heads))
        names = [tensor.name for tensor in merged if tensor.dtype in FLOATS]
        check_coverage(recipe, names)
        check_chances(recipe, names, layers=layer_count(heads[0].config))
        counted(recipe.method, [(head.repo, head.pin.commit) for head in heads])
    if isinstance(recipe, Study):
        check_cells(recipe, heads, admission)


def _heads(
    recipe: AnyRecipe, *, hubs: Hubs, settings: Settings, reads: Sequence[str], commits: Sequence[str] | None
) -> tuple[Head, ...]:
    """Every input's head, read side by side; of several refusals, the first in the recipe's order is raised."""
    models = _models(recipe)

    def look(number: int) -> Head:
        pointer, model = models[number]
        commit = commits[number] if commits else None
        with _at(pointer):
            check_read(model.repo, anonymous=hubs.anonymous, service=hubs.service, reads=reads)
            found = pin(
                hubs.service, model.repo, commit or model.revision,
                max_files=settings.max_files, max_total_bytes=settings.max_total_bytes,
            )  # fmt: skip
            named = replace(found, revision=model.revision)
            return inspect(hubs.service, named, settings=settings, adapters=number > 0 and recipe.base is not None)

    with ThreadPoolExecutor(_PARALLEL) as pool:
        heads = tuple(pool.map(look, range(len(models))))
    pointers = (pointer for pointer, _ in models[1:])
    return (heads[0], *(_over_base(head, heads[0], at=at) for head, at in zip(heads[1:], pointers, strict=True)))


def _over_base(head: Head, base: Head, *, at: str) -> Head:
    """An adapter as the whole model that it makes of the base."""
    with _at(f"{at}/repo"):
        return applied(head, base) if head.adapter else head


def _models(recipe: AnyRecipe) -> list[tuple[str, ModelRef]]:
    """Every model that a recipe names, in the order of the inputs, each with its pointer."""
    named: list[tuple[str, ModelRef]] = [("/base", recipe.base)] if recipe.base else []
    named += [(f"/experts/{i}", expert) for i, expert in enumerate(recipe.experts)]
    if isinstance(recipe, Measuring):
        named += [(f"/models/{i}", model) for i, model in enumerate(recipe.models)]
    return named


def _materials(
    recipe: AnyRecipe, heads: Sequence[Head], *, hubs: Hubs, settings: Settings, reads: Sequence[str],
    commits: Commits | None,
) -> tuple[Material, ...]:  # fmt: skip
    """What the tasks are made of; the models must be of a kind that can be asked."""
    evaluation = None if isinstance(recipe, Scoring) else recipe.evaluation
    if evaluation is None:
        return ()
    for (pointer, model), head in zip(_models(recipe), heads, strict=True):
        kind = str(head.config["model_type"])
        if not is_causal(kind):
            message = f"{model.repo} is a {kind}, which is no causal language model that transformers has"
            raise SpearError(Code.MODEL_UNSUPPORTED, message, pointer=f"{pointer}/repo", repo=model.repo, field=kind)
        with _at(f"{pointer}/repo"):
            check_specials(head.pin, kind=kind, evaluation=evaluation, hub=hubs.service, settings=settings)
    return Materials(hubs=hubs, settings=settings, reads=reads, commits=commits).of(evaluation)


def _measured(recipe: Measuring, heads: tuple[Head, ...], materials: tuple[Material, ...]) -> Preflight:
    """Each model must be whole by itself; they need not be alike."""
    admissions = []
    for (pointer, _), head in zip(_models(recipe), heads, strict=True):
        with _at(f"{pointer}/repo"):
            admissions.append(admit((head,)))
    warnings = dict.fromkeys(warning for admission in admissions for warning in admission.warnings)
    largest = max(admissions, key=lambda admission: admission.parameters)
    whole = _summary(recipe, None, heads, largest, warnings=tuple(warnings), materials=materials)
    return replace(whole, output_bytes=0, disk_bytes=whole.bytes_to_download)


def _compare_tokenizers(heads: Sequence[Head], *, hubs: Hubs, settings: Settings) -> tuple[str, ...]:
    """Each expert's tokenizer with the base's: equal digests need no look inside."""
    warnings: list[str] = []
    for number, head in enumerate(heads[1:]):
        if head.adapter and not ships_tokenizer(head.pin):
            continue  # the base's is used
        with _at(f"/experts/{number}/repo"):
            warnings += _compare_pair(heads[0].pin, head.pin, hubs=hubs, settings=settings)
    return tuple(dict.fromkeys(warnings))


def _match_tokens(heads: Sequence[Head], *, source: int, hubs: Hubs, settings: Settings) -> tuple[str, ...]:
    """What matching rows by token to the vocabulary of model `source` will do, in words."""

    def read(head: Head, name: str) -> bytes | None:
        file = head.pin.file(name)
        return read_small(hubs.service, head.pin, file, settings=settings) if file else None

    return row_warnings(read_lexicons(heads, read=read), source=source)


def _compare_pair(base: Pin, other: Pin, *, hubs: Hubs, settings: Settings) -> tuple[str, ...]:
    for name in (*COMPARABLE, *OPAQUE):
        ours, theirs = base.file(name), other.file(name)
        if ours is None or theirs is None:
            continue
        if ours.digest == theirs.digest:
            return ()
        if name in OPAQUE:
            raise SpearError(
                Code.VOCABULARY_MISMATCH, f"{name} differs between {other.repo} and {base.repo}",
                repo=other.repo, file=name,
            )  # fmt: skip
        return compare_vocabularies(
            _vocabulary(base, ours, hubs=hubs, settings=settings),
            _vocabulary(other, theirs, hubs=hubs, settings=settings),
        )
    return (f"the tokenizers of {base.repo} and {other.repo} have no file in common: they were not compared",)


def _vocabulary(source: Pin, file: RemoteFile, *, hubs: Hubs, settings: Settings) -> Vocabulary:
    raw = read_small(hubs.service, source, file, settings=settings)
    return parse_vocabulary(raw, repo=source.repo, file=file.path, max_depth=settings.max_json_depth)


def _about_target(target: Target | None, *, hubs: Hubs) -> tuple[str, ...]:
    """An existing target keeps its visibility: say so where the recipe asks for another."""
    if target is None or not target.private:
        return ()
    try:
        hubs.anonymous.check_access(target.repo)
    except SpearError:
        return ()
    return (f"{target.repo} exists and is public; private applies to a new repository only",)


def _summary(
    recipe: AnyRecipe, dtype: str | None, heads: tuple[Head, ...], admission: Admission, *,
    warnings: tuple[str, ...], materials: tuple[Material, ...],
) -> Preflight:  # fmt: skip
    wanted = OUTPUT_TAGS[dtype] if dtype else None
    stored = [(tensor, _stored(tensor, wanted)) for tensor in admission.tensors]
    written = sum(tensor.elements * DTYPE_BITS[dtype] // 8 for tensor, dtype in stored)
    blobs = {file.digest: file.size for head in heads for file in head.files}
    blobs |= {file.digest: file.size for material in materials for file in material.files}
    download = sum(blobs.values())
    asked = loaded(admission.parameters) if materials else 0
    working = IDLE_BYTES + max((working_set(tensor, recipe) for tensor in admission.tensors), default=0)
    return Preflight(
        pins=tuple(head.pin for head in heads),
        heads=heads,
        admission=admission,
        warnings=(*admission.warnings, *warnings),
        dtypes=tuple(sorted({dtype for _, dtype in stored})),
        bytes_to_download=download,
        output_bytes=written,
        peak_memory_bytes=max(working, asked),
        disk_bytes=download + written,
        materials=materials,
    )


def _stored(tensor: TensorInfo, wanted: str | None) -> str:
    return wanted if wanted and tensor.dtype in FLOATS else tensor.dtype


@contextmanager
def _at(pointer: str) -> Iterator[None]:
    """Gives refusals from inside their place in the recipe."""
    try:
        yield
    except SpearError as error:
        if error.pointer is None:
            whole = pointer.count("/") > 1 and pointer.endswith("/repo")
            field = "/revision" if error.code in _REVISION_CODES else "/repo"
            error.pointer = pointer if whole else pointer + field
        raise
