"""What kind of module a tensor belongs to, and in which layer, by its name."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

EMBEDDING, HEAD, NORM, BIAS, OTHER = "embedding", "head", "norm", "bias", "other"
FUSED = {"qkv": ("q", "k", "v"), "gate_up": ("gate", "up")}
"""Types of tensors that hold several projections, and which; see `worker.scores.parts`."""

_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|block)\.(\d+)\.")
_EXPERT = re.compile(r"\.experts\.(\d+)\.")
_TOWER = re.compile(r"(?:^|\.)(?:vision|visual|audio|image)\w*\.")  # only the language model is scored
_TYPES = (
    # Llama, Qwen, Mistral, Gemma, and the experts of Qwen's mixtures
    (re.compile(r"(?:^|\.)(q|k|v|o|gate|up|down)_proj(?:\.weight)?$"), ""),
    # Phi-3: fused rows; experts stored as one 3-D tensor without `.weight`
    (re.compile(r"(?:^|\.)(?:self_attn\.qkv_proj|attention\.query_key_value|attn\.c_attn)\.weight$"), "qkv"),
    (re.compile(r"(?:^|\.)gate_up_proj(?:\.weight)?$"), "gate_up"),
    # Mixtral's experts
    (re.compile(r"\.experts\.\d+\.w1\.weight$"), "gate"),
    (re.compile(r"\.experts\.\d+\.w2\.weight$"), "down"),
    (re.compile(r"\.experts\.\d+\.w3\.weight$"), "up"),
    # Phi-1 and 2, GPT-NeoX, GPT-2: an MLP without a gate
    (re.compile(r"(?:^|\.)(?:self_attn\.dense|attention\.dense|attn\.c_proj)\.weight$"), "o"),
    (re.compile(r"(?:^|\.)mlp\.(?:fc1|dense_h_to_4h|c_fc)\.weight$"), "up"),
    (re.compile(r"(?:^|\.)mlp\.(?:fc2|dense_4h_to_h|c_proj)\.weight$"), "down"),
    (re.compile(r"(?:^|\.)(?:embed_tokens|word_embeddings|wte|embed_in)\.weight$"), EMBEDDING),
    (re.compile(r"(?:^|\.)(?:lm_head|embed_out|output)\.weight$"), HEAD),
    (re.compile(r"(?:^|[._])(?:\w*norm|\w*layernorm|ln_\w+)(?:\.weight|\.bias)?$"), NORM),
    (re.compile(r"\.bias$"), BIAS),
)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a tensor stands in its model; `layer` is None outside the blocks, `expert` outside a mixture."""

    module_type: str
    layer: int | None
    expert: int | None = None


def place(name: str) -> Place:
    """Module type, layer and expert of a tensor named `name`.

    Types: `q k v o gate up down embedding head norm bias other`, and `qkv`, `gate_up` for fused tensors. In a model
    with several towers only the language model's tensors have a type other than `other`.
    """
    layer, expert = _LAYER.search(name), _EXPERT.search(name)
    return Place(
        module_type=_module_type(name),
        layer=int(layer.group(1)) if layer else None,
        expert=int(expert.group(1)) if expert else None,
    )


def wanted(name: str, *, ndim: int, modules: Iterable[str]) -> bool:
    """Whether a stored tensor is to be scored.

    An entry of `modules` is a module type or a shell-style pattern (`fnmatch`, case-sensitive: `*`, `?`, `[...]`) that
    matches the whole tensor name. A fused tensor is scored if one of its projections is asked for. Only matrices are
    scored, and 3-D tensors of experts: a vector has a single singular value.
    """
    kind = _module_type(name)
    kinds = {kind, *FUSED.get(kind, ())}
    shaped = ndim == 2 or (ndim == 3 and ".experts." in name)
    return shaped and any(entry in kinds or fnmatchcase(name, entry) for entry in modules)


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a shell-style pattern among `patterns` matches the whole name."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _module_type(name: str) -> str:
    if _TOWER.search(name):
        return OTHER
    for pattern, kind in _TYPES:
        found = pattern.search(name)
        if found:
            return kind or found.group(1)
    return OTHER
