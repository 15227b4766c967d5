"""lm-eval's model interface over one loaded model whose weights change between runs.

What is asked for is tokenised once and kept, so that measuring another candidate costs its forward passes only.
"""

from collections.abc import Callable, Hashable
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from app.errors import Code, SpearError
from worker.evaluation.likelihood import Likelihood, Span, likelihoods
from worker.evaluation.shortage import SHORTAGES, shortage_told

BATCH_TOKENS = 4096


class LanguageModel(HFLM):  # type: ignore[misc]  # lm-eval has no types
    """Answers lm-eval's requests with the weights that `model` has at the moment."""

    def __init__(
        self, model: Any, tokenizer: Any, *, batch_tokens: int = BATCH_TOKENS, batch_size: int = 8,
        told: Callable[[], None] = lambda: None,
    ) -> None:
        """`told` is called after each batch, so that somebody can see that work goes on."""
        super().__init__(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
        self._told = told
        self._batch_tokens = batch_tokens
        self._kept: dict[Hashable, list[Span]] = {}

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:  # noqa: ARG002  (lm-eval's signature)
        """Of each continuation after its context, and whether greedy generation would give it."""
        spans = [span for request in requests for span in self._spans("continuation", request.args, self._continuation)]
        return [(found.total, found.greedy) for found in self._likelihoods(spans)]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:  # noqa: ARG002
        """Of whole texts: in windows of the model's context, each token once."""
        windows = [self._spans("rolling", request.args, self._rolling) for request in requests]
        found = iter(self._likelihoods([span for spans in windows for span in spans]))
        return [sum(next(found).total for _ in spans) for spans in windows]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:  # noqa: ARG002
        """Greedy or as the task asks for it; batches that memory is too small for are halved.

        Raises `SpearError(out_of_memory)` if a single request does not fit.
        """
        size = self.batch_size_per_gpu
        order = sorted(range(len(requests)), key=lambda i: (-len(requests[i].args[0]), i))  # little padding
        found: dict[int, str] = {}
        for start in range(0, len(order), size):
            batch = order[start : start + size]
            found.update(zip(batch, self._generated([requests[i] for i in batch]), strict=True))
            self._told()
        return [found[i] for i in range(len(requests))]

    def _generated(self, requests: list[Instance]) -> list[str]:
        try:
            with shortage_told():
                made: list[str] = super().generate_until(requests, disable_tqdm=True)
        except SHORTAGES as error:
            if len(requests) == 1:
                raise SpearError(Code.OUT_OF_MEMORY, "memory is too small to generate one answer") from error
        except AssertionError as error:  # lm-eval's own check
            message = f"the answers asked for are longer than the model's context of {self.max_length} tokens"
            raise SpearError(Code.TASK_UNSUPPORTED, message) from error
        else:
            return made
        half = len(requests) // 2  # outside the handler: there the failed pass would still hold its memory
        return self._generated(requests[:half]) + self._generated(requests[half:])

    def token_count(self, text: str) -> int:
        """How many tokens `loglikelihood_rolling` predicts in a text."""
        return sum(span.scored for span in self.rolling_spans(text))

    def rolling_spans(self, text: str) -> list[Span]:
        """What `loglikelihood_rolling` scores of a text."""
        return self._spans("rolling", (text,), self._rolling)

    def _likelihoods(self, spans: list[Span]) -> list[Likelihood]:
        return likelihoods(self.model, spans, batch_tokens=self._batch_tokens, told=lambda _: self._told())

    def _spans(self, kind: str, args: tuple[Any, ...], encode: Callable[..., list[Span]]) -> list[Span]:
        key = (kind, *args)
        if key not in self._kept:
            self._kept[key] = encode(*args)
        return self._kept[key]

    def _continuation(self, context: str, continuation: str) -> list[Span]:
        """As lm-eval splits them; where both are longer than the model's context, the context's beginning goes."""
        before, after = self._encode_pair(context, continuation) if context else self._bare(continuation)
        tokens = (*before, *after)[-self.max_length :]
        return [Span(tokens=tokens, scored=min(len(after), len(tokens) - 1))]

    def _bare(self, continuation: str) -> tuple[list[int], list[int]]:
        return [self.prefix_token_id], self.tok_encode(continuation, add_special_tokens=False)

    def _rolling(self, text: str) -> list[Span]:
        windows = get_rolling_token_windows(
            token_list=self.tok_encode(text), prefix_token=self.prefix_token_id, max_seq_len=self.max_length,
            context_len=1,
        )
        pairs = [make_disjoint_window(window) for window in windows]
        return [Span(tokens=(*before, *after), scored=len(after)) for before, after in pairs]
