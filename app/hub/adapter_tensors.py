"""What an adapter's tensors do to which tensors of its base, decided from headers alone. Pure.

Source of the names and shapes: https://github.com/huggingface/peft, `tuners/lora/layer.py`, `utils/save_and_load.py`.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from app.errors import Code, SpearError
from app.hub.adapters import ADAPTER_WEIGHTS, AdapterConfig
from app.hub.headers import TensorInfo

PREFIX = "base_model.model."
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
ENDS_OF_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")
ENDS_OF_HEADS = ("lm_head.weight", "embed_out.weight")
MAX_RANK = 1_024
"""A rank that is taken even where the weight's own is smaller: memory grows with it."""
STORED_TRANSPOSED = frozenset({"gpt2", "openai-gpt", "imagegpt", "decision_transformer", "clvp"})
"""Model types whose projections are transformers' `Conv1D`, stored as (in, out)."""

_FACTOR = re.compile(
    r"(?P<module>.+)\.(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)"
    r"(?:\.default)?(?P<bias>\.bias)?(?:\.weight)?"
)
_WRAPPING = re.compile(r"\.(?:base_layer|modules_to_save(?:\.default)?)(?=\.)")
_FOREIGN = re.compile(r"\.(?:lora_|trainable_tokens|token_adapter|original_module)")


@dataclass(frozen=True)
class Change:
    """What happens to one tensor of the base: it is replaced, or something is added to it, or both in this order.

    For a matrix of (out, in), `down` is (r, in), `up` (out, r) and `magnitude` (out,); `transposed` says that the base
    stores it as (in, out), as Conv1D and embeddings do. `shift` is added to a bias. `module` is the adapter's own name.
    """

    module: str
    replaced: TensorInfo | None = None
    down: TensorInfo | None = None
    up: TensorInfo | None = None
    magnitude: TensorInfo | None = None
    shift: TensorInfo | None = None
    rank: int = 0
    embedding: bool = False
    transposed: bool = False

    @property
    def parts(self) -> tuple[TensorInfo, ...]:
        every = (self.replaced, self.down, self.up, self.magnitude, self.shift)
        return tuple(part for part in every if part)


def plan_changes(
    config: AdapterConfig, tensors: Mapping[str, TensorInfo], *, base: Mapping[str, TensorInfo],
    base_config: Mapping[str, Any], tied: bool,
) -> dict[str, Change]:
    """The changes by the base tensor's name; `tensors` are the adapter's, `tied` whether the base's head is tied.

    Raises `SpearError` naming the tensor: `ADAPTER_INVALID` (a factor without its partner), `ADAPTER_UNSUPPORTED`,
    `TENSOR_MISSING`, `SHAPE_MISMATCH`, `VOCABULARY_MISMATCH` (other rows of the embedding), `TIED_HEAD_MISMATCH`,
    `DTYPE_UNSUPPORTED`.
    """
    ours = _gather(tensors)
    if not ours:
        raise SpearError(Code.WEIGHTS_MISSING, f"{ADAPTER_WEIGHTS} holds no tensor", file=ADAPTER_WEIGHTS)
    rename = _renaming(ours, base)
    changes = {}
    for name, change in ours.items():
        target = name if name in base and name.endswith(ENDS_OF_HEADS) else rename(name)
        if tied and target.endswith(ENDS_OF_HEADS):
            if config.tying and change.up is None and any(key.endswith(ENDS_OF_EMBEDDINGS) for key in ours):
                continue  # trained as one with the embedding, and saved under both names
            raise _one_of_two(target, "the head")
        if target in changes:
            raise _fault(Code.ADAPTER_INVALID, name, f"the adapter changes {target} twice, under two names")
        if target not in base:
            raise _fault(Code.TENSOR_MISSING, name, f"the adapter changes {name}, which the base does not have")
        weight = ours.get(f"{change.module}.weight", change)
        changes[target] = _fitting(change, base[target], weight=weight, config=config, base_config=base_config)
        # of a tied model, peft gives a module that was trained whole to the embedding, and leaves the head as it was
        if tied and target.endswith(ENDS_OF_EMBEDDINGS) and not (change.up or config.tying):
            raise _one_of_two(target, "the embedding")
    return changes


def _gather(tensors: Mapping[str, TensorInfo]) -> dict[str, Change]:
    """The adapter's tensors put together by what they change, under the names that the adapter uses."""
    changes: dict[str, Change] = {}
    for info in tensors.values():
        if info.dtype not in FLOATS:
            raise _fault(Code.DTYPE_UNSUPPORTED, info.name, f"{info.name} is stored as {info.dtype}")
        name = info.name.removeprefix(PREFIX)
        found = _FACTOR.fullmatch(name)
        if found is None and _FOREIGN.search(f".{name}"):
            raise _fault(Code.ADAPTER_UNSUPPORTED, info.name, f"{info.name} is no tensor of a plain LoRA or DoRA")
        target, module, more = _role(found, info) if found else _whole(name, info)
        change = changes.get(target, Change(module))
        if any(getattr(change, part) for part in more if part != "embedding"):
            raise _fault(Code.ADAPTER_INVALID, info.name, f"{info.name} stands there twice, under two names")
        changes[target] = replace(change, module=module, **more)
    return changes


def _role(found: re.Match[str], info: TensorInfo) -> tuple[str, str, dict[str, Any]]:
    """What a factor belongs to: the changed tensor, the module, and its place in the `Change`."""
    module, part = _WRAPPING.sub("", found["module"] + ".")[:-1], found["part"]
    if found["bias"]:
        if part != "lora_B":
            raise _fault(Code.ADAPTER_UNSUPPORTED, info.name, f"{info.name} is no tensor of a plain LoRA or DoRA")
        return f"{module}.bias", module, {"shift": info}
    if part == "lora_magnitude_vector":
        return f"{module}.weight", module, {"magnitude": info}
    place = "down" if part.endswith("A") else "up"
    return f"{module}.weight", module, {place: info, "embedding": "embedding" in part}


def _whole(name: str, info: TensorInfo) -> tuple[str, str, dict[str, Any]]:
    target = _WRAPPING.sub("", name)
    return target, target.rpartition(".")[0], {"replaced": info}


def _renaming(names: Iterable[str], base: Mapping[str, TensorInfo]) -> Callable[[str], str]:
    """Modules' names are not always the checkpoint's: a first name too many or too few, a language model inside.

    The first way under which all names are found is taken; if there is none, names stay as they are.
    """
    first = Counter(name.partition(".")[0] for name in base).most_common(1)[0][0]
    ways: tuple[Callable[[str], str], ...] = (
        lambda name: name,
        lambda name: f"{first}.{name}",
        lambda name: name.partition(".")[2],
        lambda name: re.sub(r"^model\.language_model\.", "language_model.model.", name),
        lambda name: re.sub(r"^model\.language_model\.", "model.", name),
    )
    known = [name for name in names if not name.endswith(ENDS_OF_HEADS)]
    return next((way for way in ways if all(way(name) in base for name in known)), ways[0])


def _fitting(
    change: Change, target: TensorInfo, *, weight: Change, config: AdapterConfig, base_config: Mapping[str, Any]
) -> Change:
    """The change, once every shape of it is known to fit; `weight` is that of the same module's weight."""
    name = target.name
    if target.dtype not in FLOATS:
        raise _fault(Code.DTYPE_UNSUPPORTED, name, f"the adapter changes {name}, which is stored as {target.dtype}")
    for part in (change.replaced, change.shift):
        if part and part.shape != target.shape:
            raise _misfit(part, target)
    if change.shift and weight.down is None:
        raise _fault(Code.ADAPTER_INVALID, change.shift.name, f"{change.shift.name} has no lora_A beside it")
    if change.up is None and change.down is None and change.magnitude is None:
        return replace(change, rank=weight.down.shape[0] if weight.down else 0)
    if change.up is None or change.down is None or (change.magnitude is not None) != config.dora:
        lacking = "lora_A" if change.down is None else "lora_B" if change.up is None else "magnitude"
        raise _fault(Code.ADAPTER_INVALID, name, f"{change.module}: the {lacking} does not go with the rest")
    return _oriented(change, change.down, change.up, target, base_config=base_config)


def _oriented(
    change: Change, down: TensorInfo, up: TensorInfo, target: TensorInfo, *, base_config: Mapping[str, Any]
) -> Change:
    if not len(down.shape) == len(up.shape) == len(target.shape) == 2:
        raise _fault(Code.ADAPTER_UNSUPPORTED, down.name, f"{down.name}: only adapters of matrices can be applied")
    (rank, inside), (outside, other) = down.shape, up.shape
    if rank != other or rank == 0:
        raise _fault(Code.ADAPTER_INVALID, up.name, f"{up.name} is {list(up.shape)}, its partner {list(down.shape)}")
    if rank > max(MAX_RANK, min(inside, outside)):
        raise _fault(Code.LIMIT_EXCEEDED, down.name, f"{down.name} has rank {rank}, more than the weight can have")
    conv = base_config.get("model_type") in STORED_TRANSPOSED and target.shape == (inside, outside)
    turned = change.embedding or conv
    if target.shape != ((inside, outside) if turned else (outside, inside)):
        raise _misfit(down if inside not in target.shape else up, target)
    if change.magnitude and change.magnitude.shape != (outside,):
        raise _misfit(change.magnitude, target)
    return replace(change, rank=rank, transposed=turned)


def _misfit(part: TensorInfo, target: TensorInfo) -> SpearError:
    rows = target.name.endswith((*ENDS_OF_EMBEDDINGS, *ENDS_OF_HEADS)) and part.shape[1:] == target.shape[1:]
    words = f"{part.name} is {list(part.shape)}, which does not fit {target.name} of {list(target.shape)}"
    if rows:
        return _fault(Code.VOCABULARY_MISMATCH, target.name, f"{words}: the adapter has another vocabulary")
    return _fault(Code.SHAPE_MISMATCH, target.name, words, shape=list(part.shape), base_shape=list(target.shape))


def _one_of_two(target: str, which: str) -> SpearError:
    words = f"the base ties its head to the embedding; the adapter has trained {which} by itself"
    return _fault(Code.TIED_HEAD_MISMATCH, target, words)


def _fault(code: Code, tensor: str, message: str, **names: Any) -> SpearError:
    return SpearError(code, message, file=ADAPTER_WEIGHTS, tensor=tensor, **names)
