"""Tokens that an evaluation cannot do without, looked for in the tokenizers' configs before a weight is fetched.

The worker looks again at the loaded tokenizers: here only what is certain is refused, for some classes of tokenizers
have tokens that their configs do not name.
"""

from collections.abc import Mapping
from typing import Any

from app.errors import Code, SpearError
from app.hub.client import Hub
from app.hub.inspect import read_small
from app.hub.pins import Pin
from app.hub.strictjson import parse_object
from app.recipes.evaluation import Evaluation, FileTask
from app.settings import Settings

TOKENIZER_CONFIG, TOKEN_MAP = "tokenizer_config.json", "special_tokens_map.json"
PLAIN = frozenset({"PreTrainedTokenizerFast", "TokenizersBackend"})
"""classes of transformers that have no token but those that the files name"""
OVERRIDDEN = "qwen"
"""model types that begin so may be given a class of their own whatever the config says, and that has an end"""
BEGIN, END = "bos_token", "eos_token"


def check_specials(pin: Pin, *, kind: str, evaluation: Evaluation, hub: Hub, settings: Settings) -> None:
    """Raises `SpearError(tokenizer_unsuitable)` where the config says that a needed token is not there.

    Texts are predicted from a beginning or an end; generation stops at an end. `kind` is the model's type.
    """
    lacking = _lacking(pin, kind=kind, hub=hub, settings=settings)
    if {BEGIN, END} <= lacking:
        words = "the tokenizer has neither a bos_token nor an eos_token, and one of them is needed"
        raise SpearError(Code.TOKENIZER_UNSUITABLE, f"{pin.repo}: {words}", repo=pin.repo, token=BEGIN)
    asked = (*evaluation.tasks, *(evaluation.calibration.tasks if evaluation.calibration else ()))
    task = next((one.label for one in asked if isinstance(one, FileTask) and one.kind == "exact_match"), None)
    if END in lacking and task:
        words = f"task {task} needs an eos_token, and there is none"
        raise SpearError(Code.TOKENIZER_UNSUITABLE, f"{pin.repo}: {words}", repo=pin.repo, token=END, task=task)


def _lacking(pin: Pin, *, kind: str, hub: Hub, settings: Settings) -> set[str]:
    """The tokens that are certainly not there."""
    said = _read(pin, TOKENIZER_CONFIG, hub=hub, settings=settings)
    if said is None:
        return set()
    plain = said.get("tokenizer_class") in PLAIN and not kind.startswith(OVERRIDDEN)
    unnamed = {token for token in (BEGIN, END) if said.get(token, "" if not plain else None) is None}
    try:
        older = _read(pin, TOKEN_MAP, hub=hub, settings=settings) if unnamed else None
    except SpearError as error:
        if error.code != Code.CONFIG_INVALID:
            raise
        return set()  # nobody else reads it as strictly as we do
    return {token for token in unnamed if not (older or {}).get(token)}


def _read(pin: Pin, name: str, *, hub: Hub, settings: Settings) -> Mapping[str, Any] | None:
    file = pin.file(name)
    if file is None:
        return None
    raw = read_small(hub, pin, file, settings=settings)
    return parse_object(raw, code=Code.CONFIG_INVALID, file=name, max_depth=settings.max_json_depth)
