"""Models and tokenizers as transformers loads them: from safetensors on this disk, never with code of a repository."""

from pathlib import Path
from typing import Any

import torch

from app.errors import Code, SpearError
from app.hub.adapters import ADAPTER_CONFIG
from worker.checkpoints.adapter import AdaptedCheckpoint
from worker.pipeline.companions import TOKEN_MAPS

NAMED = 3
"""tensors that a message names"""
_SAFE = {"trust_remote_code": False, "local_files_only": True}


def dtype_of(device: str) -> str:
    """float32 on a processor; on a GPU as it is stored, which is what would be served."""
    return "float32" if device == "cpu" else "auto"


def load_model(path: Path, *, repo: str, base: Path, device: str) -> Any:
    """The causal language model in `path`, ready to be asked; an adapter is applied to the one in `base`.

    Raises `SpearError(model_unsupported)` where transformers does not know its architecture, or finds weights missing.
    """
    options: dict[str, Any] = {**_SAFE, "dtype": dtype_of(device), "output_loading_info": True}
    model, found = _loaded(path, repo=repo, base=base, options=options)
    lacking = sorted(found["missing_keys"]) + sorted(str(one[0]) for one in found["mismatched_keys"])
    if lacking:
        shown = ", ".join(lacking[:NAMED]) + (" ..." if len(lacking) > NAMED else "")
        raise SpearError(
            Code.MODEL_UNSUPPORTED, f"{repo}: weights of the model are not in its files: {shown}",
            repo=repo, tensors=lacking[:NAMED],
        )
    return model.to(device).eval().requires_grad_(False)  # noqa: FBT003  (torch's signature)


def load_tokenizer(path: Path, *, repo: str, base: Path) -> Any:
    """The tokenizer in `path`; an adapter without one has the base's.

    Raises `SpearError(tokenizer_unsuitable)` where there is none, or where it has neither a beginning nor an end: what
    the first token of a text is predicted from.
    """
    from transformers import AutoTokenizer  # noqa: PLC0415  (takes seconds, and the extra may be missing)

    folder = path if any(found for name in TOKEN_MAPS for found in path.glob(name)) else base
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **_SAFE)
    except (OSError, ValueError, ImportError) as error:
        message = f"{repo}: transformers cannot load its tokenizer: {_told(error, folder, repo=repo)}"
        raise SpearError(Code.TOKENIZER_UNSUITABLE, message, repo=repo) from error
    if tokenizer.bos_token_id is None and tokenizer.eos_token_id is None:
        message = f"{repo}: the tokenizer has neither a bos_token nor an eos_token, and one of them is needed"
        raise SpearError(Code.TOKENIZER_UNSUITABLE, message, repo=repo, token="bos_token")  # noqa: S106
    return tokenizer


def _loaded(path: Path, *, repo: str, base: Path, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    from transformers import AutoConfig, AutoModelForCausalLM  # noqa: PLC0415
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING  # noqa: PLC0415
    from transformers.utils import logging  # noqa: PLC0415

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        if not (path / ADAPTER_CONFIG).is_file():
            loaded: Any = AutoModelForCausalLM.from_pretrained(path, use_safetensors=True, **options)
        else:
            config = AutoConfig.from_pretrained(base, **_SAFE)
            architectures: Any = MODEL_FOR_CAUSAL_LM_MAPPING
            given = {name: options[name] for name in ("dtype", "output_loading_info")}
            weights = _applied(path, base=base)
            loaded = architectures[type(config)].from_pretrained(None, config=config, state_dict=weights, **given)
    except (ValueError, KeyError, OSError, ImportError) as error:
        message = f"{repo}: transformers cannot load it: {_told(error, path, base, repo=repo)}"
        raise SpearError(Code.MODEL_UNSUPPORTED, message, repo=repo) from error
    model, found = loaded
    return model, found


def _applied(path: Path, *, base: Path) -> dict[str, torch.Tensor]:
    """All tensors with the adapter's changes, in memory."""
    with AdaptedCheckpoint.apply(path, base=base) as checkpoint:
        return {name: checkpoint.read(name) for name in checkpoint.tensors}


def _told(error: Exception, *folders: Path, repo: str) -> str:
    """The first line of what the library says, without this machine's folders."""
    said = str(error).strip().partition("\n")[0]
    for folder in folders:
        said = said.replace(str(folder), repo)
    return said[:300]
