"""An adapter's head over its base's: what the two are together. Pure."""

from dataclasses import replace

from app.errors import SpearError
from app.hub.adapter_tensors import ENDS_OF_EMBEDDINGS, plan_changes
from app.hub.adapters import ADAPTER_CONFIG, config_warnings
from app.hub.heads import idle_heads, is_tied
from app.hub.inspect import SINGLE, Head
from app.hub.pins import Pin
from app.hub.vocabulary import COMPARABLE, OPAQUE


def applied(adapter: Head, base: Head) -> Head:
    """The adapter's head with the base's config and tensors, once its own are known to fit.

    Raises `SpearError` as `plan_changes` does, naming the adapter's repository and the tensor.
    """
    assert adapter.adapter is not None
    tied = is_tied(base.config, base.tensors)
    try:
        changes = plan_changes(adapter.adapter, adapter.tensors, base=base.tensors, base_config=base.config, tied=tied)
    except SpearError as error:
        raise SpearError(
            error.code, f"{adapter.repo}: {error.message}", **{"repo": adapter.repo, **error.names}
        ) from None
    idle = idle_heads(base.config, {name: info.shape for name, info in base.tensors.items()})
    tensors = {name: info for name, info in base.tensors.items() if name not in idle}
    return replace(adapter, config=base.config, tensors=tensors, changed=frozenset(changes))


def adapter_warnings(head: Head, base: Head) -> tuple[str, ...]:
    """What a person should know of an expert that is an adapter; nothing of one that is not."""
    if head.adapter is None:
        return ()
    kind = "DoRA" if head.adapter.dora else "LoRA"
    count = f"{len(head.changed)} of {len(base.tensors)} tensors"
    warnings = [f"{head.repo} is a {kind} adapter: it is applied to {base.repo}, of which it changes {count}"]
    if is_tied(base.config, base.tensors) and any(name.endswith(ENDS_OF_EMBEDDINGS) for name in head.changed):
        warnings.append(f"{head.repo} changes the embedding, and the head that {base.repo} ties to it changes with it")
    if head.pin.file(SINGLE):
        warnings.append(f"{head.repo} also holds {SINGLE}, which is left aside: its {ADAPTER_CONFIG} goes before it")
    return (*warnings, *config_warnings(head.adapter, repo=head.repo, base=base.repo))


def ships_tokenizer(pin: Pin) -> bool:
    """Whether the repository has a tokenizer of its own: a file that maps tokens to ids."""
    return any(pin.file(name) for name in (*COMPARABLE, *OPAQUE))
