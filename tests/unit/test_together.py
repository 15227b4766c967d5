"""Questions that are asked at the same time are answered together, and never with what was known before them."""

import asyncio
import threading
import time

import pytest

from app.api.bodies import LIMIT, Bodies, Body
from app.api.together import Together


def test_questions_gather_while_one_is_answered():
    asked: list[list[str]] = []

    def answer(questions):
        asked.append(sorted(questions))
        time.sleep(0.05)
        return {question: question.upper() for question in questions if question != "none"}

    async def main():
        together = Together(answer)
        first = asyncio.create_task(together("first"))
        await asyncio.sleep(0.01)
        rest = await asyncio.gather(*(together(name) for name in ("a", "b", "a", "none")))
        return await first, rest

    first, rest = asyncio.run(main())
    assert (first, rest) == ("FIRST", ["A", "B", "A", None])
    assert asked == [["first"], ["a", "b", "none"]]


def test_an_answer_is_never_older_than_its_question():
    value, seen = [0], threading.Event()

    def answer(questions):
        now = value[0]
        seen.set()
        time.sleep(0.05)
        return dict.fromkeys(questions, now)

    async def main():
        together = Together(answer)
        old = asyncio.create_task(together("x"))
        await asyncio.to_thread(seen.wait)
        value[0] = 1
        return await together("x"), await old

    assert asyncio.run(main()) == (1, 0)


def test_a_failure_reaches_those_who_asked_and_nobody_else():
    def answer(questions):
        if "bad" in questions:
            raise RuntimeError("no answer")
        return dict.fromkeys(questions, 1)

    async def main():
        together = Together(answer)
        with pytest.raises(RuntimeError, match="no answer"):
            await together("bad")
        return await together("good")

    assert asyncio.run(main()) == 1


def test_bodies_are_known_by_their_version_and_bounded():
    bodies = Bodies()
    for number in range(LIMIT + 1):
        bodies.keep(f"job{number}", Body(version=2, ended=True, content=b"{}"))
    assert bodies.get("job0", 2) is None
    assert bodies.get("job1", 2) is not None
    assert bodies.get("job1", 3) is None
