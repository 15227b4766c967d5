"""PEFT's LoRA adapters: what adapter_config.json says, read as data. Pure.

Source of the format and of its meaning: https://github.com/huggingface/peft, `LoraConfig` and `get_pattern_key`.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.errors import Code, SpearError
from app.hub.strictjson import MAX_DEPTH, parse_object

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
APPLIED = "applied-1"
"""Raised whenever applying an adapter would give other bits than before."""

PLAIN_STARTS = ("true", "false", "none", "gaussian", "eva", "orthogonal")
"""Initialisations that leave the base's weights alone; any other changes them, and peft does so again on loading."""
REFUSED = {
    "trainable_token_indices": "single rows of the embedding were trained",
    "layer_replication": "it repeats layers of the base",
    "target_parameters": "it changes parameters that are no module's weight",
    "alora_invocation_tokens": "it acts from certain tokens on only (aLoRA)",
    "use_qalora": "it pools its inputs (QALoRA)",
    "use_bdlora": "its factors are block-diagonal (BD-LoRA)",
    "arrow_config": "it is a router over adapters (Arrow)",
    "kasa_config": "it truncates the base's spectrum (KaSA)",
    "monteclora_config": "its weights are sampled (MonteCLoRA)",
    "velora_config": "it is a VeLoRA",
    "megatron_config": "it is meant for Megatron's layers",
}
IGNORED = frozenset({
    "auto_mapping", "base_model_name_or_path", "bias", "corda_config", "ensure_weight_tying", "eva_config",
    "exclude_modules", "fan_in_fan_out", "inference_mode", "init_lora_weights", "layers_pattern",
    "layers_to_transform", "loftq_config", "lora_alpha", "lora_bias", "lora_dropout", "lora_ga_config",
    "megatron_core", "modules_to_save", "peft_type", "peft_version", "qalora_group_size", "r", "rank_pattern",
    "alpha_pattern", "revision", "runtime_config", "target_modules", "task_type", "use_dora", "use_rslora",
})  # fmt: skip
"""Fields that are read here, or that say nothing which the tensors do not say."""

_ATOM = r"(?:\\[.dw]|\[[\w-]+\]|[\w.-])"
_PATTERN = re.compile(rf"(?:{_ATOM}[*+?]?|[()|^$])*")
_MAX_PATTERN, _MAX_REPEATS, _MAX_MODULE = 200, 3, 256


@dataclass(frozen=True)
class AdapterConfig:
    """What the tensors of the adapter do not say themselves. `alphas` maps patterns of module names to their alpha."""

    alpha: float
    alphas: Mapping[str, float]
    rank_stabilised: bool
    dora: bool
    tying: bool
    """whether the head shall follow an embedding that was trained whole"""
    trained_on: str | None
    unknown: tuple[str, ...]
    """fields with a value that nobody here knows the meaning of"""

    def scaling(self, module: str, *, rank: int) -> float:
        """The factor of one module's product: alpha / r, or alpha / sqrt(r) where it is rank-stabilised (rsLoRA).

        As in peft, a pattern counts where it matches the module's name or the end of it behind a dot, the first one
        first. `module` is the name that the adapter uses, without `base_model.model.`.
        """
        alpha = next((alpha for key, alpha in self.alphas.items() if _matches(key, module)), self.alpha)
        return alpha / math.sqrt(rank) if self.rank_stabilised else alpha / rank


def parse_adapter_config(raw: bytes, *, max_depth: int = MAX_DEPTH) -> AdapterConfig:
    """Raises `ADAPTER_INVALID` for what is no configuration, `ADAPTER_UNSUPPORTED` for what cannot be applied here."""
    said = parse_object(raw, code=Code.ADAPTER_INVALID, file=ADAPTER_CONFIG, max_depth=max_depth)
    kind = said.get("peft_type")
    if not isinstance(kind, str):
        raise _invalid("peft_type", kind)
    if kind != "LORA":
        raise _unsupported("peft_type", f"this is a {kind[:40]!r} adapter; LORA is supported")
    for field, words in REFUSED.items():
        if said.get(field):
            raise _unsupported(field, words)
    start = said.get("init_lora_weights")
    if not str(start).lower().startswith(PLAIN_STARTS):
        raise _unsupported("init_lora_weights", f"its start, {str(start)[:40]!r}, changed the base's own weights")
    return AdapterConfig(
        alpha=_number(said, "lora_alpha", default=8),
        alphas=_alphas(said),
        rank_stabilised=_flag(said, "use_rslora"),
        dora=_flag(said, "use_dora"),
        tying=_flag(said, "ensure_weight_tying"),
        trained_on=_text(said, "base_model_name_or_path"),
        unknown=tuple(field for field, value in said.items() if value and field not in {*IGNORED, *REFUSED}),
    )


def config_warnings(config: AdapterConfig, *, repo: str, base: str) -> tuple[str, ...]:
    """What a person should know of an adapter before it is applied to `base`."""
    warnings = []
    if config.trained_on and config.trained_on.lower() != base.lower():
        warnings.append(f"the adapter {repo} was trained on {config.trained_on[:100]!r}; it is applied to {base}")
    warnings += [
        f"{ADAPTER_CONFIG} of {repo} has {field[:60]!r}, which is not known here: ignored"
        for field in config.unknown[:5]
    ]
    return tuple(warnings)


def _matches(key: str, module: str) -> bool:
    return len(module) <= _MAX_MODULE and re.match(rf"(.*\.)?({key})$", module) is not None


def _alphas(said: Mapping[str, Any]) -> dict[str, float]:
    patterns = said.get("alpha_pattern") or {}
    if not isinstance(patterns, dict):
        raise _invalid("alpha_pattern", patterns)
    for key in patterns:
        _check_pattern(key)
    return {key: _number(patterns, key, default=0) for key in patterns}


def _check_pattern(key: str) -> None:
    """A stranger's regular expression is run only where it cannot take long: no repeated groups, few repetitions."""
    simple = len(key) <= _MAX_PATTERN and _PATTERN.fullmatch(key) and sum(map(key.count, "*+?")) <= _MAX_REPEATS
    try:
        re.compile(key if simple else "(")
    except re.error:
        words = f"{key[:80]!r} is not a name or a simple pattern of names"
        raise _unsupported("alpha_pattern", words) from None


def _number(said: Mapping[str, Any], field: str, *, default: float) -> float:
    value = said.get(field, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e9:
        raise _invalid(field, value)
    return float(value)


def _flag(said: Mapping[str, Any], field: str) -> bool:
    value = said.get(field) or False
    if not isinstance(value, bool):
        raise _invalid(field, value)
    return value


def _text(said: Mapping[str, Any], field: str) -> str | None:
    value = said.get(field)
    if value is not None and not isinstance(value, str):
        raise _invalid(field, value)
    return value or None


def _invalid(field: str, value: Any) -> SpearError:
    return SpearError(
        Code.ADAPTER_INVALID, f"{ADAPTER_CONFIG}: {field[:80]} is {str(value)[:80]!r}",
        file=ADAPTER_CONFIG, field=field[:80],
    )  # fmt: skip


def _unsupported(field: str, words: str) -> SpearError:
    return SpearError(Code.ADAPTER_UNSUPPORTED, f"{ADAPTER_CONFIG}: {field}: {words}", file=ADAPTER_CONFIG, field=field)


def applied_digests(*, base: Mapping[str, str], adapter: Mapping[str, str]) -> dict[str, str]:
    """What identifies the applied tensors by the base's weight file that they come from: all that their bits depend on.

    Both arguments map a repository's files to their digests.
    """
    whole = [APPLIED, base.get("config.json"), adapter.get(ADAPTER_CONFIG), adapter.get(ADAPTER_WEIGHTS)]
    return {
        file: "sha256:" + hashlib.sha256(json.dumps([*whole, digest]).encode()).hexdigest()
        for file, digest in base.items()
        if file.endswith(".safetensors")
    }
