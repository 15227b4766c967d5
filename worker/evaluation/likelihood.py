"""Log-likelihoods of given tokens under a causal language model: one forward pass, and little else.

Only the positions that are scored go through the output head and the softmax. Results do not depend on the other spans
of a batch but for rounding: padding stands on the right, where a causal model cannot look.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from app.errors import Code, SpearError
from worker.evaluation.shortage import SHORTAGES, shortage_told

_SOFTMAX_ROWS = 128  # logits turned to float32 at once: a bound on memory where vocabularies are large


@dataclass(frozen=True)
class Span:
    """Token ids, of which the last `scored` are predicted, each from all before it."""

    tokens: tuple[int, ...]
    scored: int

    def __post_init__(self) -> None:
        if not 0 < self.scored < len(self.tokens):
            raise ValueError(f"{self.scored} of {len(self.tokens)} tokens cannot be predicted from those before")


@dataclass(frozen=True)
class Likelihood:
    """Natural logarithm of the probability of the scored tokens, and whether each was the likeliest."""

    total: float
    greedy: bool


def likelihoods(
    model: Any, spans: Sequence[Span], *, batch_tokens: int, told: Callable[[int], None] = lambda _: None
) -> list[Likelihood]:
    """One for each span, in order.

    Args:
        model: a causal language model of transformers, in evaluation mode.
        spans: what to score; none longer than the model's context.
        batch_tokens: at most so many tokens, padding included, are computed at once; a batch that memory is too small
            for is halved.
        told: gets the number of spans that are done, after each batch.

    Raises:
        SpearError: `out_of_memory` if a single span does not fit.
    """
    found: dict[int, Likelihood] = {}
    for batch in batches(spans, batch_tokens=batch_tokens):
        found.update(zip(batch, _scored(model, [spans[i] for i in batch]), strict=True))
        told(len(found))
    return [found[i] for i in range(len(spans))]


def batches(spans: Sequence[Span], *, batch_tokens: int) -> Iterator[list[int]]:
    """What is computed at once, by number: the longest first, so that the memory it takes is known at once.

    A batch whose spans are given alone, in their order, is the same batch.
    """
    batch: list[int] = []
    for i in sorted(range(len(spans)), key=lambda i: (len(spans[i].tokens), i), reverse=True):
        if batch and (len(batch) + 1) * len(spans[batch[0]].tokens) > batch_tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _scored(model: Any, spans: list[Span]) -> list[Likelihood]:
    try:
        with shortage_told():
            return _forward(model, spans)
    except SHORTAGES as error:
        if len(spans) == 1:
            raise SpearError(
                Code.OUT_OF_MEMORY, f"memory is too small for one sequence of {len(spans[0].tokens)} tokens"
            ) from error
    half = len(spans) // 2  # outside the handler: there the failed pass would still hold its memory
    return _scored(model, spans[:half]) + _scored(model, spans[half:])


def _forward(model: Any, spans: list[Span]) -> list[Likelihood]:
    longest = len(spans[0].tokens)
    ids = torch.zeros(len(spans), longest, dtype=torch.long)
    for row, span in zip(ids, spans, strict=True):
        row[: len(span.tokens)] = torch.tensor(span.tokens)
    first = min(len(span.tokens) - span.scored for span in spans)
    keep = torch.arange(first - 1, longest - 1, device=model.device)  # position p predicts token p + 1
    with torch.inference_mode():
        logits = model(input_ids=ids.to(model.device), use_cache=False, logits_to_keep=keep).logits
        return [_likelihood(logits[i], span, first=first) for i, span in enumerate(spans)]


def _likelihood(logits: torch.Tensor, span: Span, *, first: int) -> Likelihood:
    """`logits` is positions x vocabulary, in the model's dtype; float32 from here on."""
    end = len(span.tokens)
    start = end - span.scored
    targets = torch.tensor(span.tokens[start:], device=logits.device)
    total, greedy = 0.0, True
    for low in range(0, span.scored, _SOFTMAX_ROWS):
        high = min(low + _SOFTMAX_ROWS, span.scored)
        rows, wanted = logits[start - first + low : start - first + high].float(), targets[low:high]
        total -= float(torch.nn.functional.cross_entropy(rows, wanted, reduction="sum"))
        greedy = greedy and bool((rows.argmax(-1) == wanted).all())
    return Likelihood(total=total, greedy=greedy)
