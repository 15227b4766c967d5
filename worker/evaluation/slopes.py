"""Slopes of a loss by the strengths, in one backward pass that never holds more than one weight's gradient."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from app.errors import Code, SpearError
from worker.evaluation.bootstrap import Floats
from worker.evaluation.candidates import Between
from worker.evaluation.likelihood import Span, batches
from worker.evaluation.shortage import SHORTAGES, shortage_told

SLOPED_TOKENS = 2048
"""tokens of a batch, padding included: a backward pass holds every layer's activations"""


def slopes(
    between: Between, spans: Sequence[Span], *, batch_tokens: int = SLOPED_TOKENS,
    told: Callable[[], None] = lambda: None,
) -> tuple[Floats, Floats]:  # fmt: skip
    """Nats of each span, and the slopes of their sum by each strength in the order of `between.names`.

    `told` is called after each batch. Batches that memory is too small for are halved.

    Raises `SpearError(out_of_memory)` if a single span does not fit.
    """
    nats, total = np.zeros(len(spans)), np.zeros(len(between.names))
    with _gathering(between, total):
        for batch in batches(spans, batch_tokens=batch_tokens):
            nats[batch] = _passed(between, [spans[i] for i in batch], total)
            told()
    return nats, total


@contextmanager
def _gathering(between: Between, total: Floats) -> Iterator[None]:
    """Gradients turn into slopes, added to `total`, and are let go, weight by weight."""
    hooks = []
    for i, (name, weight) in enumerate(between.model.named_parameters()):

        def gather(weight: torch.Tensor, i: int = i, name: str = name) -> None:
            assert weight.grad is not None
            total[i] += between.pull(name, weight.grad)
            weight.grad = None

        weight.requires_grad_(True)  # noqa: FBT003  (torch's signature)
        hooks.append(weight.register_post_accumulate_grad_hook(gather))
    try:
        with torch.enable_grad():  # the computing child has them switched off
            yield
    finally:
        for hook in hooks:
            hook.remove()
        between.model.zero_grad(set_to_none=True)
        between.model.requires_grad_(False)  # noqa: FBT003


def _passed(between: Between, spans: list[Span], total: Floats) -> Floats:
    """Nats of each span; the slopes are added to `total`."""
    before = total.copy()
    try:
        with shortage_told():
            return _backward(between, spans)
    except SHORTAGES as error:
        if len(spans) == 1:
            message = f"memory is too small for the slopes of one sequence of {len(spans[0].tokens)} tokens"
            raise SpearError(Code.OUT_OF_MEMORY, message) from error
    total[:] = before  # some weights may have had their share already
    between.model.zero_grad(set_to_none=True)
    half = len(spans) // 2  # outside the handler: there the failed pass would still hold its memory
    return np.concatenate([_passed(between, part, total) for part in (spans[:half], spans[half:])])


def _backward(between: Between, spans: list[Span]) -> Floats:
    """fp32 from the logits on."""
    model, longest = between.model, len(spans[0].tokens)
    ids = torch.zeros(len(spans), longest, dtype=torch.long)
    targets = torch.full((len(spans), longest), -100)
    for row, wanted, span in zip(ids, targets, spans, strict=True):
        end = len(span.tokens)
        row[:end] = torch.tensor(span.tokens)
        wanted[end - span.scored - 1 : end - 1] = row[end - span.scored : end]  # position p predicts token p + 1
    logits = model(input_ids=ids.to(model.device), use_cache=False).logits.float()
    found = torch.nn.functional.cross_entropy(
        logits.transpose(1, 2), targets.to(model.device), reduction="none", ignore_index=-100
    ).sum(1)
    torch.autograd.backward(found.sum())
    nats: Floats = found.detach().double().cpu().numpy()
    return nats
