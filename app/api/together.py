"""Questions that are asked at the same time, answered by one query.

Many pollers ask for little: whether a key is valid, which version a job is at. While one such query runs, others gather
and go together in the next. Every answer is newer than its question, so this is no cache: nobody sees the past.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

from fastapi.concurrency import run_in_threadpool

K = TypeVar("K")
V = TypeVar("V")


class Together(Generic[K, V]):
    """`ask` gets all different questions that are open, in a thread, and gives the answers that there are."""

    def __init__(self, ask: Callable[[Sequence[K]], Mapping[K, V]]) -> None:
        self._ask = ask
        self._open: dict[K, asyncio.Future[V | None]] = {}
        self._serving: asyncio.Task[None] | None = None

    async def __call__(self, question: K) -> V | None:
        """The answer; None where there is none. Raises what `ask` raises."""
        answer = self._open.get(question)
        if answer is None:
            answer = self._open[question] = asyncio.get_running_loop().create_future()
        if self._serving is None or self._serving.done():
            self._serving = asyncio.create_task(self._serve())
        return await asyncio.shield(answer)  # others wait for it too

    async def _serve(self) -> None:
        while self._open:
            asked, self._open = self._open, {}
            try:
                found = await run_in_threadpool(self._ask, list(asked))
            except Exception as error:  # noqa: BLE001  (it belongs to those who asked)
                for answer in asked.values():
                    answer.set_exception(error)
                    answer.exception()  # who asked may be gone: that is no error of the loop's
            else:
                for question, answer in asked.items():
                    answer.set_result(found.get(question))
