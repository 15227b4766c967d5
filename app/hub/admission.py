"""Whether checkpoints can be merged, decided from their heads alone. Pure."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.errors import Code, SpearError
from app.hub.headers import TensorInfo
from app.hub.heads import idle_heads, is_tied
from app.hub.inspect import Head
from app.hub.strictjson import shown

FLOATS = ("F64", "F32", "F16", "BF16")
"""Dtypes that can be merged, in any mixture: the arithmetic is fp32."""
QUANTIZED_MARKS = (".qweight", ".qzeros", ".scales", ".g_idx", ".weight_scale", ".weight_scale_inv", ".absmax")
CORES = ("model", "language_model", "transformer", "gpt_neox", "backbone", "decoder", "h", "layers")
"""First names of the language model itself, which is never an optional part."""
_LAYER = re.compile(rf"(?:(?:{'|'.join(CORES)})\.)*(?:layers|h)\.([0-9]+)\.")

SAME_FIELDS = (
    "model_type", "architectures", "hidden_size", "n_embd", "num_hidden_layers", "n_layer", "num_attention_heads",
    "n_head", "num_key_value_heads", "head_dim", "intermediate_size", "num_experts", "num_local_experts",
)  # fmt: skip
WARNED_FIELDS = ("rope_theta", "rope_scaling", "rope_parameters", "rms_norm_eps", "hidden_act", "sliding_window")


@dataclass(frozen=True)
class Admission:
    """What the merge will write: every tensor that a model has, without a head stored though tied.

    `parameters` counts elements, `bytes` their size as the last model that has them stores them.
    """

    tensors: tuple[TensorInfo, ...]
    parameters: int
    bytes: int
    warnings: tuple[str, ...]


def admit(heads: Sequence[Head]) -> Admission:
    """Compares every expert with the base (`heads[0]`); each refusal names the repository and the field or tensor.

    Raises `ARCHITECTURE_MISMATCH`, `VOCABULARY_MISMATCH` (sizes), `TIED_HEAD_MISMATCH`, `TENSOR_MISSING`,
    `SHAPE_MISMATCH`, `DTYPE_MISMATCH`, `DTYPE_UNSUPPORTED`, `QUANTIZED_WEIGHTS`; `names["model"]` is the head's place
    in `heads`.
    """
    base, warnings = heads[0], list[str]()
    kept = [_without_tied_head(head, warnings) for head in heads]
    for number, (head, tensors) in enumerate(zip(heads, kept, strict=True)):
        try:
            _check_dtypes(head, tensors)
            _compare_configs(base, head, warnings)
            _compare_tensors(base, kept[0], head, tensors, warnings)
        except SpearError as error:
            error.names.setdefault("model", number)
            raise
    written = _union(kept)
    return Admission(
        tensors=written,
        parameters=sum(tensor.elements for tensor in written),
        bytes=sum(tensor.nbytes for tensor in written),
        warnings=tuple(dict.fromkeys(warnings)),
    )


def check_layers(heads: Sequence[Head], *, wanted: int) -> None:
    """Raises `ARCHITECTURE_MISMATCH` for a model that has another number of layers, or does not say how many."""
    for head in heads:
        found = _field(head.config, "num_hidden_layers") or _field(head.config, "n_layer")
        if found != wanted:
            raise SpearError(
                Code.ARCHITECTURE_MISMATCH, f"{head.repo} has {found or 'an unknown number of'} layers, not {wanted}",
                repo=head.repo, field="num_hidden_layers", pointer="/layers",
            )  # fmt: skip


def _without_tied_head(head: Head, warnings: list[str]) -> dict[str, TensorInfo]:
    """The tensors that matter: of a tied head stored beside its embedding, loaders use the embedding."""
    kept = dict(head.tensors)
    for name in idle_heads(head.config, {name: tensor.shape for name, tensor in kept.items()}):
        del kept[name]
        warnings.append(f"{head.repo} stores {name}, though its head is tied: it is left out")
    return kept


def _union(kept: Sequence[dict[str, TensorInfo]]) -> tuple[TensorInfo, ...]:
    """Every tensor that a model has, as the last one that has it stores it."""
    found: dict[str, TensorInfo] = {}
    for tensors in reversed(kept):
        found = {**found, **{name: tensor for name, tensor in tensors.items() if name not in found}}
    return tuple(found.values())


def _compare_configs(base: Head, other: Head, warnings: list[str]) -> None:
    for field in SAME_FIELDS:
        ours, theirs = _field(base.config, field), _field(other.config, field)
        if ours is not None and theirs is not None and ours != theirs:
            raise SpearError(
                Code.ARCHITECTURE_MISMATCH,
                f"{field} is {shown(theirs)} in {other.repo} and {shown(ours)} in {base.repo}",
                repo=other.repo, field=field,
            )  # fmt: skip
    ours, theirs = _field(base.config, "vocab_size"), _field(other.config, "vocab_size")
    if ours != theirs:
        raise SpearError(
            Code.VOCABULARY_MISMATCH, f"vocab_size is {theirs} in {other.repo} and {ours} in {base.repo}",
            repo=other.repo, field="vocab_size",
        )  # fmt: skip
    ties = is_tied(base.config, base.tensors)
    if ties != is_tied(other.config, other.tensors):
        tied, loose = (base, other) if ties else (other, base)
        raise SpearError(
            Code.TIED_HEAD_MISMATCH, f"{tied.repo} ties its head to the embedding, {loose.repo} does not",
            repo=other.repo, field="tie_word_embeddings",
        )  # fmt: skip
    for field in WARNED_FIELDS:
        ours, theirs = _field(base.config, field), _field(other.config, field)
        if ours != theirs:
            warnings.append(f"{field} is {shown(theirs)} in {other.repo} and {shown(ours)} in {base.repo}")


def _compare_tensors(
    base: Head, ours: dict[str, TensorInfo], other: Head, theirs: dict[str, TensorInfo], warnings: list[str]
) -> None:
    _account_for_extra(ours, theirs, here=base, there=other, warnings=warnings)
    _account_for_extra(theirs, ours, here=other, there=base, warnings=warnings)
    for name, tensor in theirs.items():
        if name not in ours:
            continue
        if ours[name].shape != tensor.shape:
            raise SpearError(
                Code.SHAPE_MISMATCH,
                f"{name} is {list(tensor.shape)} in {other.repo} and {list(ours[name].shape)} in {base.repo}",
                repo=other.repo, file=tensor.file, tensor=name, shape=list(tensor.shape),
                base_shape=list(ours[name].shape),
            )  # fmt: skip
        if ours[name].dtype != tensor.dtype and not {ours[name].dtype, tensor.dtype} <= set(FLOATS):
            raise SpearError(
                Code.DTYPE_MISMATCH,
                f"{name} is {tensor.dtype} in {other.repo} and {ours[name].dtype} in {base.repo}",
                repo=other.repo, file=tensor.file, tensor=name, dtype=tensor.dtype,
            )  # fmt: skip


def _account_for_extra(
    have: dict[str, TensorInfo], lack: dict[str, TensorInfo], *, here: Head, there: Head, warnings: list[str]
) -> None:
    """Refuses tensors that one side lacks, but for whole parts that it does not have at all: a vision tower, an MTP
    head, which may be stored as a layer behind the last."""
    layers = _layers(here.config)
    parts = {name: part_of(name, layers=layers) for name in have}
    present = {part_of(name, layers=layers) for name in lack}
    extra = Counter(parts[name] for name in have if name not in lack)
    missing = next((name for name in have if name not in lack and parts[name] in {None, *present}), None)
    if missing is not None:
        raise SpearError(
            Code.TENSOR_MISSING, f"{missing} is in {here.repo} and not in {there.repo}",
            repo=there.repo, file=have[missing].file, tensor=missing,
        )  # fmt: skip
    warnings.extend(
        f"{count} tensors of {prefix} are in {here.repo} and not in {there.repo}: carried over as they are"
        for prefix, count in extra.items()
    )


def part_of(name: str, *, layers: int | None) -> str | None:
    """The optional part of a model that a tensor belongs to, by its names: `mtp`, `model.visual`, `model.layers.61`.

    `None` for the language model itself: what has no layers or modules inside, and the layers that the configuration
    counts; there are `layers` of them, where that is known.
    """
    found = _LAYER.match(name)
    if found:
        return found[0][:-1] if layers is not None and int(found[1]) >= layers else None
    names = name.split(".")
    first = next((i for i, part in enumerate(names) if part not in CORES), len(names))
    return ".".join(names[: first + 1]) if len(names) - first > 2 else None


def _layers(config: dict[str, Any]) -> int | None:
    """How many layers the language model has, by its configuration."""
    found = _field(config, "num_hidden_layers") or _field(config, "n_layer")
    return found if isinstance(found, int) else None


def _check_dtypes(head: Head, tensors: dict[str, TensorInfo]) -> None:
    """Floats merge; whole numbers and booleans (buffers) are copied; everything else is refused."""
    for name, tensor in tensors.items():
        if tensor.dtype in FLOATS and not name.endswith(QUANTIZED_MARKS):
            continue
        if tensor.dtype.startswith(("F8", "F6", "F4")) or name.endswith((*QUANTIZED_MARKS, ".weight")):
            code, words = Code.QUANTIZED_WEIGHTS, "looks like quantised weights"
        elif tensor.dtype == "C64":
            code, words = Code.DTYPE_UNSUPPORTED, "cannot be merged"
        else:
            continue
        raise SpearError(
            code, f"{name} of {head.repo} is {tensor.dtype}: that {words}",
            repo=head.repo, file=tensor.file, tensor=name, dtype=tensor.dtype,
        )  # fmt: skip


def _field(config: dict[str, Any], name: str) -> Any:
    """A field of the configuration, or of the language model's part of it."""
    if name in config:
        return config[name]
    part = config.get("text_config")
    return part.get(name) if isinstance(part, dict) else None
